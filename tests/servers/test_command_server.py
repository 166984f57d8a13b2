"""Commands in forks: what they get, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers.hopgate import Gateway, _commands, environment, eventually, hopgate
from tests.servers.ports import free_ports


def test_command_has_its_own_output_and_code(tmp_path: Path) -> None:
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data")}
    good, bad = hopgate(settings, "--help"), hopgate(settings, "keys", "list")

    assert (good.returncode, good.stderr) == (0, "")
    assert "Usage: hopgate" in good.stdout
    assert (bad.returncode, bad.stdout) == (1, "")
    assert settings["HOPGATE_DATA_DIR"] in bad.stderr


def test_command_that_is_too_slow_is_killed(tmp_path: Path) -> None:
    bind = f"127.0.0.1:{free_ports(1)[0]}"
    settings = environment({"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BIND": bind})
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        _commands().run(["serve"], settings, timeout=2)
    assert time.monotonic() - started < 10


def test_number_of_an_ended_command_is_free_after_its_code_is_read(tmp_path: Path) -> None:
    started = _commands().start(["serve", "--wrong"], environment({}), output=tmp_path / "log")
    while Path(f"/proc/{started.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    os.kill(started.pid, 0)

    assert started.wait() == 2
    assert "No such option" in (tmp_path / "log").read_text()
    eventually(lambda: not Path(f"/proc/{started.pid}").exists())


def test_process_that_ends_leaves_no_warning() -> None:
    """Warnings of what is still there at its end come too late for pytest to fail."""
    code = "from tests.servers.hopgate import hopgate; print(hopgate({}, '--version').returncode)"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_gateway_in_a_fork_reports_its_signal(tmp_path: Path, number: signal.Signals) -> None:
    with Gateway({"HOPGATE_DATA_DIR": str(tmp_path)}, tmp_path) as gateway:
        process = gateway._process
        assert process is not None
        assert process.poll() is None
        gateway.signal(number)
        assert process.wait(20) == (0 if number == signal.SIGTERM else -number)
