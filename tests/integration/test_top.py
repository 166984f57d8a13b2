"""`hopgate top` beside a real gateway."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.servers.hopgate import Gateway, command, environment, eventually, hopgate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("top")
    with Gateway({"HOPGATE_DATA_DIR": str(directory / "data")}, directory) as gateway:
        yield gateway


def settings(gateway: Gateway) -> dict[str, str]:
    """The data folder alone: its gateway says where it listens."""
    return {"HOPGATE_DATA_DIR": gateway._settings["HOPGATE_DATA_DIR"]}


def test_page_is_printed_once_without_a_terminal(gateway):
    for options in ((), ("--once",), ("--url", f"{gateway.url}/")):
        done = hopgate(settings(gateway), "top", *options)

        assert done.returncode == 0, done.stderr
        assert gateway.url in done.stdout
        rows = {" ".join(line.split()) for line in done.stdout.splitlines()}
        assert {"store ok", "cache ok", "bus ok", "processes 1"} <= rows
        assert "\x1b" not in done.stdout


def test_json_has_the_same_figures(gateway):
    done = hopgate(settings(gateway), "top", "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["url"] == gateway.url
    assert found["dependencies"] == {"store": "ok", "cache": "ok", "bus": "ok", "front": "ok"}
    assert found["overview"]["processes"] == 1
    # The scrapes themselves.
    assert found["overview"]["requests_per_s"] > 0
    assert found["overview"]["outbox_rows"] == 0
    assert found["overview"]["memory_bytes"] > 10 << 20


def test_no_gateway_is_one_line():
    done = hopgate({}, "top", "--url", "http://127.0.0.1:1")

    assert done.returncode == 1
    assert done.stderr == "hopgate: no gateway answers on http://127.0.0.1:1: Connection refused\n"
    assert done.stdout == ""


def test_live_page_goes_on_without_the_gateway_and_ends_with_ctrl_c(tmp_path):
    with Gateway({"HOPGATE_DATA_DIR": str(tmp_path / "data")}, tmp_path) as gateway:
        parent, child = pty.openpty()
        try:
            live = subprocess.Popen(
                # What a shell starts in the background, such as these tests, ignores this signal.
                ["env", "--default-signal=INT", *command("top")],
                env=environment({**settings(gateway), "TERM": "xterm", "COLUMNS": "80", "LINES": "50"}),
                cwd=ROOT,
                stdin=child,
                stdout=child,
                stderr=child,
            )
            os.close(child)
            os.set_blocking(parent, False)
            seen = bytearray()

            def shows(text: bytes) -> bool:
                with suppress(BlockingIOError):
                    seen.extend(os.read(parent, 1 << 16))
                return text in seen

            try:
                eventually(lambda: shows(b"requests/s"), timeout=60, what="the first page")
                for _ in range(5):
                    assert httpx.get(f"{gateway.url}/healthz").status_code == 200
                gateway.kill()
                eventually(lambda: shows(b"no gateway answers"), timeout=60, what="its absence")
                assert live.poll() is None
                live.send_signal(signal.SIGINT)
                # The cursor is shown again, and the screen is the former one.
                eventually(lambda: shows(b"\x1b[?1049l"), timeout=30, what="the end")
                assert live.wait(30) == 0
            finally:
                live.kill()
                live.wait()
            assert b"Traceback" not in seen
        finally:
            os.close(parent)
