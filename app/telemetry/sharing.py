"""
Combines the samples of a gateway's processes, so that any of them can report for all.

Each process holds a numbered slot in a folder, by a file lock that ends with it. It writes its
samples there once a second and before every scrape. The next process in the same slot continues
from those counts: a process that dies loses at most a second of counts, a counter that was shown
never falls, and there are no more files than processes.
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
from app.telemetry.families import Counter, Family, Gauge, Histogram
from app.telemetry.samples import Samples, lasting, merge

# Gauges of a process that has not written for this long are ignored.
_FRESH_S = 5.0


class _File(msgspec.Struct):
    """Families are written whole, so reading needs no list of them that could be incomplete."""

    written_at: float
    samples: list[tuple[Counter | Gauge | Histogram, list[tuple[tuple[str, ...], list[float]]]]]


class SharedSamples:
    """
    The slot of one process in *folder*, which exists and belongs to one gateway alone.

    All methods read and write files; calls must not overlap.

    Args:
        clock: seconds of a clock that all processes of the machine share, and that never goes back.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._lock, self._path = self._take_slot()
        left = _read(self._path)
        self._before = lasting(_samples(left)) if left else {}

    def write(self, own: Samples) -> None:
        """
        Write *own*, the counts of this process since its start.

        Raises:
            Unavailable: the disk is full, or the folder gone.
        """
        document = _File(self._clock(), _by_family(merge([self._before, own])))
        draft = self._path.with_suffix(".new")
        try:
            # Cleaners of /tmp remove old files: without its lock file, a slot would be taken twice.
            os.utime(self._lock.fileno())
            draft.write_bytes(msgspec.json.encode(document))
            draft.rename(self._path)
        except OSError as error:
            raise Unavailable("the folder of metrics", str(error)) from error

    def read(self) -> Samples:
        """Return the samples of all processes; of ended ones only what lasts."""
        processes = []
        for path in sorted(self._folder.glob("*.json")):
            file = _read(path)
            if file is not None:
                samples = _samples(file)
                is_fresh = self._clock() - file.written_at < _FRESH_S
                processes.append(samples if is_fresh else lasting(samples))
        return merge(processes)

    def close(self, own: Samples) -> None:
        """Leave the slot and its counters to the next process. Raises as `write`."""
        try:
            self.write(lasting(own))
        finally:
            self._lock.close()

    def _take_slot(self) -> tuple[IO[str], Path]:
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
    return {family.of(*labels): values for family, series in file.samples for labels, values in series}


def _by_family(samples: Samples) -> list[tuple[Family, list[tuple[tuple[str, ...], list[float]]]]]:
    grouped: dict[Family, list[tuple[tuple[str, ...], list[float]]]] = {}
    for (family, labels), values in samples.items():
        grouped.setdefault(family, []).append((labels, values))
    return list(grouped.items())
