"""Start, pause and end a server together with the processes that it starts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.servers import watcher

# Waits for the word to go on, so that the watcher knows the number of every server that runs.
_HELD = ["/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh"]
# After SIGKILL only the kernel takes time.
_KILLED_S = 10.0


def start(
    command: Sequence[str | Path],
    *,
    output: Path,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    user: str | None = None,
    at_runner_end: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """
    Run *command* in a session of its own until `end`, at the latest until this process ends.

    Args:
        output: the file that its output is added to.
        environment: the whole of it; None inherits this process's.
        directory: where it runs.
        user: its user, if not this process's.
        at_runner_end: see `watcher.watch_process`.
    """
    with output.open("ab") as log:
        process = subprocess.Popen(
            [*_HELD, *command],
            env=environment,
            cwd=directory,
            user=user,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # Ctrl-C reaches the tests only.
            start_new_session=True,
        )
    watcher.watch_process(process.pid, at_runner_end)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as held:
        held.write(b"\n")
    return process


class Started(Protocol):
    """What is used of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...


def end(process: Started, number: signal.Signals, *, within_s: float = _KILLED_S) -> int:
    """
    Send *number* to *process* and its group, paused or not, and return its exit code.

    A process that has not ended within *within_s* is killed.
    """
    for sent in (number, signal.SIGCONT):  # a paused process sees SIGKILL alone
        signal_group(process.pid, sent)
    try:
        code = process.wait(within_s)
    except subprocess.TimeoutExpired:
        signal_group(process.pid, signal.SIGKILL)
        code = process.wait(_KILLED_S)
    watcher.forget_process(process.pid)
    return code


def wait(process: Started, within_s: float) -> int:
    """Return the exit code of *process*; kill it and raise `subprocess.TimeoutExpired` after *within_s*."""
    try:
        code = process.wait(within_s)
    except subprocess.TimeoutExpired:
        end(process, signal.SIGKILL)
        raise
    watcher.forget_process(process.pid)
    return code


def signal_group(group: int, number: signal.Signals) -> None:
    """Send *number* to every process of *group* that is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def pause(group: int) -> None:
    """Stop every process of *group*; all have stopped when this returns."""
    os.killpg(group, signal.SIGSTOP)
    # A signal takes a moment to arrive: a quick server would still answer.
    while not all(_is_stopped(thread) for thread in Path(f"/proc/{group}/task").iterdir()):
        time.sleep(0.001)


def resume(group: int) -> None:
    """End `pause`."""
    os.killpg(group, signal.SIGCONT)


def _is_stopped(thread: Path) -> bool:
    # The state follows the name, which may contain anything, in parentheses.
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "Tt"
