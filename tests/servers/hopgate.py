"""Hopgate's own processes, started by the commands that operators use."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.servers.ports import free_ports

_START_S = 20.0
# Tests come from one address and ask for a lot; the limits have tests of their own.
UNLIMITED = {
    f"HOPGATE_LIMIT_{name}": "1000000/s burst 1000000" for name in ("REDIRECT", "API", "CREATE", "NOT_FOUND")
}

# Services that nobody has started, and a password that must show up nowhere.
UNREACHABLE = {
    "HOPGATE_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d",
    "HOPGATE_REDIS_URL": "redis://:geheim@127.0.0.1:1/0",
    "HOPGATE_AMQP_URL": "amqp://u:geheim@127.0.0.1:1/",
}


def command(*arguments: str) -> list[str]:
    """Return the command line of `hopgate ARGUMENTS` in this Python."""
    return [sys.executable, "-m", "app.cli", *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this environment with exactly these Hopgate settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOPGATE_")}
    return {**inherited, **settings}


def hopgate(
    settings: Mapping[str, str], *arguments: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `hopgate ARGUMENTS` to its end."""
    return subprocess.run(
        command(*arguments), env=environment(settings), capture_output=True, text=True, timeout=timeout
    )


def make_key(settings: Mapping[str, str], *scopes: str) -> str:
    """Make an API key by the command line."""
    options = [part for scope in scopes or ("admin",) for part in ("--scope", scope)]
    done = hopgate(settings, "keys", "create", "tests", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Process:
    """One process that runs until stopped; its output is kept in a file."""

    def __init__(self, arguments: list[str], settings: Mapping[str, str], log: Path) -> None:
        self._arguments = arguments
        self._settings = dict(settings)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                env=environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to the process and its children."""
        os.killpg(self.pid, number)

    def check_alive(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.output

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM, and return the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        code = self._process.wait(timeout)
        self._process = None
        return code

    def kill(self) -> None:
        """SIGKILL the process and its children."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.kill()


class Gateway(Process):
    """`hopgate serve` on a free port."""

    def __init__(
        self, settings: Mapping[str, str], directory: Path, arguments: list[str] | None = None
    ) -> None:
        self.port = free_ports(1)[0]
        bind = f"127.0.0.1:{self.port}"
        self.url = f"http://{bind}"
        log = directory / f"gateway-{self.port}.log"
        # On services it keeps nothing but clicks there, and only while RabbitMQ is away.
        data = {"HOPGATE_DATA_DIR": str(directory / f"data-{self.port}")}
        super().__init__(arguments or command("serve"), {**data, **settings, "HOPGATE_BIND": bind}, log)

    def start(self) -> None:
        super().start()
        deadline = time.monotonic() + _START_S
        while True:
            self.check_alive()
            try:
                if httpx.get(f"{self.url}/healthz", timeout=1).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)


class Worker(Process):
    """`hopgate worker`."""

    def __init__(
        self, settings: Mapping[str, str], directory: Path, arguments: list[str] | None = None
    ) -> None:
        super().__init__(arguments or command("worker"), settings, directory / "worker.log")


def eventually(condition, timeout: float = 15.0, what: str = "condition") -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)
