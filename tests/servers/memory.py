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
# All tests leave 2 GiB, and servers need memory as well.
_NEEDED = 6 << 30


def make_place(memory: Path = _MEMORY, *, needed: int = _NEEDED) -> Path | None:
    """
    Make a directory below *memory* that is removed when this process ends.

    None: there are less than *needed* bytes free, there or in the memory of this machine.
    """
    if not memory.is_dir() or min(shutil.disk_usage(memory).free, _available()) < needed:
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
