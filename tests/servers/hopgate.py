"""Hopgate's own processes, started by the commands that operators use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Self

from app.migrations import migrate
from tests.servers import processes, watcher
from tests.servers.command_server import CommandServer
from tests.servers.ports import free_ports
from tests.servers.raw_http import exchange

_START_S = 60.0
# Stands for `python -m app.cli` where a fork of a process that has imported it does.
_FORKED = "hopgate"
# Tests come from one address and ask for a lot; the limits have tests of their own.
UNLIMITED = {
    f"HOPGATE_LIMIT_{name}": "1000000/s burst 1000000"
    for name in ("REDIRECT", "API", "CREATE", "BULK", "NOT_FOUND")
}

# Services that do not run, and a password that must appear in no output.
UNREACHABLE = {
    "HOPGATE_DATABASE_URL": "postgresql://u:geheim@127.0.0.1:1/d",
    "HOPGATE_REDIS_URL": "redis://:geheim@127.0.0.1:1/0",
    "HOPGATE_AMQP_URL": "amqp://u:geheim@127.0.0.1:1/",
}


def command(*arguments: str) -> list[str]:
    """Return the command line of `hopgate ARGUMENTS` in this Python."""
    return [sys.executable, "-m", "app.cli", *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """
    Return this environment with exactly these Hopgate settings.

    Without a data folder among them it is one of the tests, not the one that a gateway here serves from.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOPGATE_")}
    return {**inherited, "HOPGATE_DATA_DIR": str(_data_folder()), **settings}


@cache
def _data_folder() -> Path:
    return watcher.make_directory("hopgate-data-")


def hopgate(
    settings: Mapping[str, str], *arguments: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `hopgate ARGUMENTS` to its end, in a fork of a process that has imported it."""
    return _commands().run(arguments, environment(settings), timeout=timeout)


def _may_change(variable: str) -> bool:
    """Tell whether a fork can take on *variable*; others are read when Python or the loader starts."""
    return variable.startswith(("HOPGATE_", "OTEL_", "SENTRY_")) or variable == "TMPDIR"


@cache
def _commands() -> CommandServer:
    return CommandServer()


def make_store(settings: Mapping[str, str]) -> None:
    """Make an embedded store, or leave it as it is, as `hopgate migrate` does; other commands make none."""
    if "HOPGATE_DATABASE_URL" not in settings:
        folder = Path(settings["HOPGATE_DATA_DIR"])
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "hopgate.db"
        if not path.exists():
            shutil.copy(_empty_store(), path)
        migrate(f"sqlite:///{path}")


@cache
def _empty_store() -> Path:
    """An empty store: a copy takes a tenth of the time of its migrations."""
    path = watcher.make_directory("hopgate-store-") / "hopgate.db"
    migrate(f"sqlite:///{path}")
    return path


def make_key(settings: Mapping[str, str], *scopes: str) -> str:
    """Make an API key by the command line."""
    options = [part for scope in scopes or ("admin",) for part in ("--scope", scope)]
    make_store(settings)
    done = hopgate(settings, "keys", "create", "tests", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Process:
    """
    One process that runs until stopped; its output is kept in a file.

    Args:
        arguments: the command line, or `hopgate` and arguments to run them in a fork of a process that
            has imported the program.
    """

    def __init__(self, arguments: list[str], settings: Mapping[str, str], log: Path) -> None:
        self._arguments = arguments
        self._settings = dict(settings)
        self._log = log
        self._process: processes.Started | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        settings = environment(self._settings)
        name, *arguments = self._arguments
        if name == _FORKED and all(map(_may_change, self._settings)):
            self._process = _commands().start(arguments, settings, output=self._log)
            return
        full = command(*arguments) if name == _FORKED else self._arguments
        self._process = processes.start(full, output=self._log, environment=settings)

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
        """Send SIGTERM and return the exit code; kill the process and raise after *timeout* seconds."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.terminate()
        return processes.wait(process, timeout)

    def kill(self) -> None:
        """SIGKILL the process and its children."""
        if self._process is not None:
            processes.end(self._process, signal.SIGKILL)
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
        own = {
            # With services it holds clicks only, and only while RabbitMQ is away.
            "HOPGATE_DATA_DIR": str(directory / f"data-{self.port}"),
            # A killed gateway leaves its temporary files.
            "TMPDIR": str(directory),
        }
        super().__init__(arguments or [_FORKED, "serve"], {**own, **settings, "HOPGATE_BIND": bind}, log)

    def start(self) -> None:
        super().start()
        deadline = time.monotonic() + _START_S
        while not self._is_healthy():
            self.check_alive()
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        try:
            answer = exchange(self.port, request, timeout=1)
        except OSError:
            return False
        return answer is not None and answer.status == 200


class Worker(Process):
    """`hopgate worker`."""

    def __init__(
        self, settings: Mapping[str, str], directory: Path, arguments: list[str] | None = None
    ) -> None:
        super().__init__(arguments or [_FORKED, "worker"], settings, directory / "worker.log")


def eventually(condition, timeout: float = 60.0, what: str = "condition", every: float | None = None) -> None:
    """Wait until *condition* holds; it is asked for *every* so many seconds, or as `_pauses` says."""
    deadline = time.monotonic() + timeout
    pauses = _pauses(every)
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(next(pauses))


def becomes(read, wanted, timeout: float = 60.0, what: str = "it", every: float | None = None) -> None:
    """Wait until *read* returns *wanted*; a failure tells what it returned at last."""
    deadline = time.monotonic() + timeout
    pauses = _pauses(every)
    while (found := read()) != wanted:
        assert time.monotonic() < deadline, f"{what}: {found} instead of {wanted} after {timeout:g} s"
        time.sleep(next(pauses))


def _pauses(every: float | None) -> Iterator[float]:
    """Yield seconds between two looks: a short wait ends soon, and a long one costs little."""
    if every is not None:
        yield from repeat(every)
    pause = 0.01
    while True:
        yield pause
        pause = min(0.06, 1.5 * pause)
