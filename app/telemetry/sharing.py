"""
What the processes of one gateway report, put together whichever of them is asked.

Each process holds a numbered place in a folder, by a lock that ends with it, and writes what
it has counted there once a second and whenever it is asked. Its successor in the same place
goes on counting from there: a process that dies takes at most a second of counts with it, no
counter that was once shown ever falls, and there are no more files than processes.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from app.domain.errors import Unavailable
from app.telemetry.samples import Samples, lasting, merge

# Gauges of a process that has not written for this long are of the past.
_FRESH_S = 5.0


class _File(msgspec.Struct):
    written_at: float
    samples: list[tuple[str, tuple[str, ...], list[float]]]


class SharedSamples:
    """
    The place of one process in *folder*, which exists and belongs to one gateway alone.

    All methods read and write files, and are called one after the other.

    Args:
        clock: unix seconds.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._lock, self._path = self._take_place()
        left = _read(self._path)
        self._before = lasting(_samples(left)) if left else {}

    def write(self, own: Samples) -> None:
        """
        Write what this process has counted since it began.

        Raises:
            Unavailable: the disk is full, or the folder gone.
        """
        samples = merge([self._before, own])
        document = _File(self._clock(), [(*key, values) for key, values in samples.items()])
        draft = self._path.with_suffix(".new")
        try:
            # Who tidies up old files would otherwise take the lock away, and another the same place.
            os.utime(self._lock.fileno())
            draft.write_bytes(msgspec.json.encode(document))
            draft.rename(self._path)
        except OSError as error:
            raise Unavailable("the folder of metrics", str(error)) from error

    def read(self) -> Samples:
        """Return what all processes, past and present, have written."""
        everyone = []
        for path in sorted(self._folder.glob("*.json")):
            file = _read(path)
            if file is not None:
                samples = _samples(file)
                is_fresh = self._clock() - file.written_at < _FRESH_S
                everyone.append(samples if is_fresh else lasting(samples))
        return merge(everyone)

    def close(self, own: Samples) -> None:
        """Leave the place, and what was counted in it, to a successor. Raises as `write`."""
        try:
            self.write(lasting(own))
        finally:
            self._lock.close()

    def _take_place(self) -> tuple[IO[str], Path]:
        for number in itertools.count():
            lock = (self._folder / f"{number}.lock").open("w", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            return lock, self._folder / f"{number}.json"
        raise AssertionError


def _read(path: Path) -> _File | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _samples(file: _File) -> Samples:
    return {(name, labels): values for name, labels, values in file.samples}
