"""A wall clock of Hopgate's processes that tests step, as an operator or NTP steps the system's."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_SHIFT = struct.Struct("=q")


def compiler_missing() -> str:
    """Return why no clock can be stepped on this machine; empty if it can."""
    return "" if shutil.which("cc") else "needs a C compiler (cc)"


class SteppedClock:
    """The clock of every process that runs with `settings`; see `stepped_clock.c`."""

    def __init__(self, library: Path, file: Path, shift: mmap.mmap) -> None:
        self.settings = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(file)}
        self._shift = shift

    def step(self, to_s: int) -> None:
        """Put the clock *to_s* seconds ahead of the true time; less than 0: behind it."""
        self._shift[: _SHIFT.size] = _SHIFT.pack(to_s)


@contextmanager
def stepped_clock(directory: Path) -> Iterator[SteppedClock]:
    """Make a clock with the true time; its files go into *directory*."""
    library, file = directory / "stepped_clock.so", directory / "stepped_clock"
    command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", str(_SOURCE), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    file.write_bytes(_SHIFT.pack(0))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), _SHIFT.size) as shift:
        yield SteppedClock(library, file, shift)
