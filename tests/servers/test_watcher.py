"""Servers end with the process that started them, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.hopgate import environment, eventually
from tests.servers.watcher import alive, descendants

ROOT = Path(__file__).parents[2]
# One process of each server, and one that the server starts.
_SERVERS = {"redis-server", "beam.smp", "erl_child_setup", "epmd", "postgres", "nginx", "python"}

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_killed_runner_leaves_no_server(tmp_path: Path, number: signal.Signals):
    command = [sys.executable, "-m", "tests.servers.runner", str(tmp_path)]
    with subprocess.Popen(command, env=environment({}), cwd=ROOT, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        directories = [Path(path) for path in json.loads(runner.stdout.readline())]
        started = descendants([runner.pid])[runner.pid]
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in started}
        assert all(directory.is_dir() for directory in directories)
        runner.send_signal(number)

    try:
        assert names >= _SERVERS
        eventually(lambda: not alive(started), 15, "every server has ended")
        eventually(lambda: not any(directory.exists() for directory in directories), 5, "they are removed")
    finally:
        for pid in alive(started):
            os.kill(pid, signal.SIGKILL)
