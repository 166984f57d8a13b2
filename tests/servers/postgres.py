"""A private PostgreSQL server that tests start, stop, kill and pause."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg

from app.migrations import migrate
from tests.servers import processes, watcher
from tests.servers.ports import free_ports

_READY_S = 20.0
_STOP_S = 20.0
_RUN_S = 50.0
# Of the user without rights that every Linux has.
_UNPRIVILEGED_UID = 65_534
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PrivatePostgres:
    """
    A PostgreSQL server in a temporary directory, on a free port of 127.0.0.1 (Linux).

    Use it as a context manager. The server ends and the directory is removed with the block or with
    this process, even by SIGKILL. The server refuses to run as root, so root starts it as another user.

    Args:
        fsync: whether each commit waits for the disk. Off, a killed server loses nothing either, as the
            kernel keeps what it has written; a machine without power would. On where times are measured.
        settings: further settings of the server, e.g. `{"max_connections": "20"}`.
    """

    def __init__(self, *, fsync: bool = False, settings: dict[str, str] | None = None) -> None:
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if fsync else "off",
            "shared_buffers": "32MB",
            # A zone that no code may depend on.
            "timezone": "Asia/Kathmandu",
            **(settings or {}),
        }
        self._bin = _find_binaries()
        self._user = _unprivileged_user()
        self._names = (f"hopgate_{n}" for n in count())
        self._server: subprocess.Popen[bytes] | None = None
        self._template: str | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._dir = watcher.make_directory("hopgate-postgres-")
        self._data = self._dir / "data"
        if self._user is not None:
            shutil.chown(self._dir, self._user)
        try:
            self._initdb()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self.resume()
            self.stop("immediate")
        watcher.remove_directory(self._dir)

    @property
    def directory(self) -> Path:
        """Where it keeps everything; its user may write there."""
        return self._dir

    @property
    def user(self) -> str | None:
        """The user that it runs as; None for the user of this process."""
        return self._user

    def url(self, database: str = "postgres") -> str:
        """Return the URL of *database*; its user may do everything."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, *, migrated: bool = True) -> str:
        """Create an empty database and return its URL."""
        if migrated and self._template is None:
            self._template = self._create("template0")
            migrate(self.url(self._template))
        return self.url(self._create(self._template if migrated and self._template else "template0"))

    def _create(self, template: str) -> str:
        name = next(self._names)
        with psycopg.connect(self.url(), autocommit=True) as connection:
            # A checkpoint and a copy: through the log it takes twice the time.
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        return name

    def start(self) -> None:
        """Start the server and wait until it answers; the port stays what it was."""
        self.port = self.port or free_ports(1)[0]
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._server = processes.start(
            [self._bin / "postgres", "-D", self._data, f"-p{self.port}", *options],
            output=self._dir / "log",
            directory=self._dir,
            user=self._user,
            # Its children have sessions of their own, and it frees its shared memory.
            at_runner_end=signal.SIGQUIT,
        )
        end = time.monotonic() + _READY_S
        while not self._is_ready():
            if self._server.poll() is not None or time.monotonic() > end:
                self.kill()
                log_end = (self._dir / "log").read_text()[-2000:]
                raise RuntimeError(f"PostgreSQL did not start on port {self.port}:\n{log_end}")
            time.sleep(0.01)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Shut the server down and wait until it has ended, at most 20 s; then kill it and raise."""
        assert self._server is not None, "the server is not running"
        server, self._server = self._server, None
        server.send_signal(_STOP_SIGNALS[mode])
        processes.wait(server, _STOP_S)

    def kill(self) -> None:
        """End all processes of the server by SIGKILL, as a power cut would."""
        assert self._server is not None, "the server is not running"
        if self._server.poll() is None:
            self._server.send_signal(signal.SIGSTOP)  # or it would start new children meanwhile
            for pid in self._children():
                _signal(pid, signal.SIGKILL)
            self._server.kill()
        processes.wait(self._server, _STOP_S)
        self._server = None
        # `_is_ready` must not read what a killed server has left there.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop all processes of the server: connections stay, answers do not come."""
        assert self._server is not None, "the server is not running"
        self._server.send_signal(signal.SIGSTOP)
        for pid in self._children():
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        assert self._server is not None, "the server is not running"
        for pid in self._children():
            _signal(pid, signal.SIGCONT)
        self._server.send_signal(signal.SIGCONT)

    def _initdb(self) -> None:
        # Its system identifier is that of the other servers of this process.
        self._run(["cp", "-a", _initialised(self._bin, self._user), self._data])

    def _run(self, command: list[str | Path]) -> None:
        _run(command, self._dir, self._user)

    def _is_ready(self) -> bool:
        """Read the server's own status line: this costs no connection."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() in {"ready", "standby"}

    def _children(self) -> Iterator[int]:
        # Every child has a session of its own, so the process group would not do.
        assert self._server is not None
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == self._server.pid:
                yield int(entry.parent.name)


class PostgresReplica(PrivatePostgres):
    """
    A streaming replica of *primary*, which runs; made from a copy of it.

    Args:
        settings: see `PrivatePostgres`, e.g. `{"recovery_min_apply_delay": "30s"}`.
    """

    def __init__(self, primary: PrivatePostgres, *, settings: dict[str, str] | None = None) -> None:
        super().__init__(settings=settings)
        self._primary = primary

    def promote(self) -> None:
        """Make it a primary; returns when it is."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 20)")

    def _initdb(self) -> None:
        primary = ["-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "postgres"]
        options = ["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"]
        self._run([self._bin / "pg_basebackup", "-D", self._data, *primary, *options])


@cache
def _initialised(binaries: Path, user: str | None) -> Path:
    """Return a new data directory, which every server of this process begins as a copy of."""
    place = watcher.make_directory("hopgate-initdb-")
    if user is not None:
        shutil.chown(place, user)
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    _run([binaries / "initdb", "-D", place / "data", *options], place, user)
    return place / "data"


def _run(command: list[str | Path], directory: Path, user: str | None) -> None:
    output = directory / "log"
    process = processes.start(command, output=output, directory=directory, user=user)
    if processes.wait(process, _RUN_S):
        raise RuntimeError(f"{command[0]} failed: {output.read_text()[-2000:]}")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # a child may end at any time
        os.kill(pid, number)


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return pwd.getpwuid(_UNPRIVILEGED_UID).pw_name


def _find_binaries() -> Path:
    candidates = []
    if shutil.which("pg_config"):
        found = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
        candidates.append(Path(found.stdout.strip()))
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    if (on_path := shutil.which("initdb")) is not None:
        candidates.append(Path(on_path).resolve().parent)
    for directory in candidates:
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            return directory
    raise RuntimeError("PostgreSQL's server programs are missing: install the package `postgresql`")
