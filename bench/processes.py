"""Server processes under measurement: pinned to one processor, and always stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers import watcher

_START_S = 20.0
_END_S = 5.0
# Servers run on the first processor; the load and the upstream services on the others.
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = CPUS[0], CPUS[-1]
BACK_CPUS = CPUS[1:] or CPUS
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and its child processes, which share its session."""

    pid: int
    port: int

    def cpu_s(self) -> float:
        """Return the processor time of all its processes so far, in seconds (10 ms steps)."""
        return sum(int(stat[11]) + int(stat[12]) for stat in self._stats()) / _TICKS

    def rss_mb(self) -> float:
        """Return the resident memory of all its processes; shared pages count for each."""
        return sum(int(stat[21]) for stat in self._stats()) * _PAGE / 1e6

    def is_gone(self) -> bool:
        """Has every one of its processes ended?"""
        return not any(self._stats())

    def _stats(self) -> Iterator[list[str]]:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # The fields follow the process name, which may contain brackets.
                stat = (process / "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == self.pid and stat[0] != "Z":
                    yield stat


def free_port() -> int:
    """Return a port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    port: int,
    environment: Mapping[str, str],
    *,
    cpus: Sequence[int] = (SERVER_CPU,),
) -> Iterator[Server]:
    """Run *command*, which listens on *port*, while the body runs; then kill all of its processes."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, with the process
    process: subprocess.Popen[bytes] | None = None
    try:
        with _interrupted_later():
            process = subprocess.Popen(
                ["taskset", "--cpu-list", ",".join(map(str, cpus)), *command],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
            watcher.watch_process(process.pid)
        deadline = time.monotonic() + _START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                errors.seek(0)
                reason = errors.read()[-2000:].decode(errors="replace")
                raise RuntimeError(f"{' '.join(command)} does not listen on {port}: {reason}")
            time.sleep(0.05)
        yield Server(process.pid, port)
    finally:
        if process is not None:
            _end(process)
        errors.close()


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Delay Ctrl-C until the body is done: an unrecorded process could not be stopped."""
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    watcher.forget_process(process.pid)
    deadline = time.monotonic() + _END_S
    while not Server(process.pid, 0).is_gone() and time.monotonic() < deadline:
        time.sleep(0.01)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
