"""
A process that ends the servers of a test run when their runner has ended, by whatever signal.

The runner keeps a pipe to it open and writes down each process and each directory that it makes.
The kernel closes the pipe when the runner ends, however that happens. The watcher then ends every
process that is still written down, with its descendants, and removes the directories.

`atexit` does not do: no handler runs after SIGTERM or SIGKILL.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# A server that was asked to end (PostgreSQL) is killed after that time.
_END_S = 10.0
# The runner waits a little longer for its watcher.
_CLOSE_S = 15.0

# --- in the runner ---------------------------------------------------------------------------

_watcher: subprocess.Popen[bytes] | None = None
_lock = threading.Lock()


def watch_process(pid: int, at_runner_end: signal.Signals = signal.SIGKILL) -> None:
    """
    End the process group *pid* when this process ends.

    Args:
        at_runner_end: SIGKILL goes to the whole group. Any other signal goes to the leader, which
            ends the others; after 10 s they are killed.
    """
    _tell(f"process {pid} {at_runner_end:d}")


def forget_process(pid: int) -> None:
    """Undo `watch_process` after the process has ended: its number may be given to another one."""
    _tell(f"ended {pid}")


def make_directory(prefix: str, parent: Path | None = None) -> Path:
    """Make a temporary directory that is removed when this process ends, if not before."""
    path = (parent or Path(tempfile.gettempdir())) / f"{prefix}{secrets.token_hex(8)}"
    _tell(f"directory {path}")
    path.mkdir(mode=0o700)
    return path


def remove_directory(path: Path) -> None:
    """Remove a directory that `make_directory` made."""
    shutil.rmtree(path, ignore_errors=True)
    _tell(f"removed {path}")


def _tell(line: str) -> None:
    with _lock:
        watcher = _started()
        assert watcher.stdin is not None
        watcher.stdin.write(f"{line}\n".encode())
        watcher.stdin.flush()


def _started() -> subprocess.Popen[bytes]:
    global _watcher  # noqa: PLW0603 - one for each process, and only for one that starts servers
    if _watcher is None:
        _watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C and the signals of a terminal reach the runner only.
            start_new_session=True,
        )
        atexit.register(_close, _watcher)
    return _watcher


def _close(watcher: subprocess.Popen[bytes]) -> None:
    """Return when the watcher has ended what was left over."""
    assert watcher.stdin is not None
    watcher.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        watcher.wait(_CLOSE_S)


# --- in the watcher --------------------------------------------------------------------------


def main(lines: Iterable[str]) -> None:
    """Read *lines* until the runner ends; then end what it left behind."""
    processes: dict[int, int] = {}
    directories: set[str] = set()
    for line in lines:
        verb, _, rest = line.rstrip("\n").partition(" ")
        match verb:
            case "process":
                pid, number = rest.split()
                processes[int(pid)] = int(number)
            case "ended":
                processes.pop(int(rest), None)
            case "directory":
                directories.add(rest)
            case "removed":
                directories.discard(rest)
    _end(processes)
    for path in directories:
        shutil.rmtree(path, ignore_errors=True)


def _end(processes: dict[int, int]) -> None:
    family = descendants(processes)
    for pid, number in processes.items():
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)  # a paused one does not see the first
    for pid, number in processes.items():
        if number == signal.SIGKILL:
            _kill(family[pid])  # also those that have left the group
    known = set().union(*family.values())
    deadline = time.monotonic() + _END_S
    while alive(known) and time.monotonic() < deadline:
        time.sleep(0.02)
    # Also those that a server has started since it was asked to end.
    _kill(alive(known.union(*descendants(processes).values())))


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(leaders: Iterable[int]) -> dict[int, set[int]]:
    """Return for each leader itself and all that descend from it."""
    children: dict[int, list[int]] = {}
    for pid, _, parent in _running():
        children.setdefault(parent, []).append(pid)
    found = {}
    for leader in leaders:
        members, left = set(), [leader]
        while left:
            pid = left.pop()
            members.add(pid)
            left += children.get(pid, [])
        found[leader] = members
    return found


def alive(pids: set[int]) -> set[int]:
    """Return those of *pids* that run; a zombie has ended."""
    return {pid for pid, state, _ in _running() if pid in pids and state != "Z"}


def _running() -> Iterator[tuple[int, str, int]]:
    """Give number, state and parent of every process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # They follow the name, which may contain anything, in parentheses.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            yield int(stat.parent.name), state, int(parent)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    main(sys.stdin)
