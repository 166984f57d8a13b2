"""
Where tests write: a file system in memory, where there is one with enough room.

What they write is read once or never: databases, stores, and logs that servers sync. The tests that share
processors took 736 s of processor time on a disk and 614 in memory, that of detached servers left out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.servers import watcher

_MEMORY = Path("/dev/shm")
# All tests together were seen to hold 8.0 GiB there.
_NEEDED = 10 << 30
# For the servers and the tests themselves.
_BESIDE = 6 << 30


def make_place(memory: Path = _MEMORY, *, needed: int = _NEEDED, beside: int = _BESIDE) -> Path | None:
    """
    Make a directory below *memory* that is removed when this process ends.

    None: *memory* has less than *needed* bytes free, or this machine would have less than *beside* left.
    """
    if not memory.is_dir() or shutil.disk_usage(memory).free < needed or _available() < needed + beside:
        return None
    place = watcher.make_directory("hg-", memory)
    # Servers that run as another user have directories in it.
    place.chmod(0o711)
    return place


def _available() -> int:
    """Return how many bytes of memory processes can still take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    [available] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(available) << 10
