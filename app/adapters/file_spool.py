"""
`ClickSpool` in files: one file per process, one line per batch.

A file belongs to the process that holds its lock; the kernel releases it when the process ends,
however it ends. A later process with the same folder adopts the unlocked files.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Self, TypeVar

from app.domain.errors import PoisonMessage
from app.domain.events import ClicksCounted, Counted, VisitsDescribed
from app.wire import decode_event, encode_event

log = logging.getLogger(__name__)

T = TypeVar("T")

_SUFFIX = ".clicks"
# Of a line: what is read at once. A longer one would look like the end of the file.
_MAX_LINE = 1 << 20


class _File:
    """An open and locked file; the oldest batch that was not dropped begins at `position`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self.position = 0
        self._descriptor = descriptor

    @classmethod
    def lock(cls, path: Path, flags: int = 0) -> Self | None:
        """Open and lock *path*; None if another process holds the lock."""
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise

    def append(self, line: bytes) -> None:
        """Write *line* to the disk; if that fails, nothing of it is left."""
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError("the disk is full")
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(line)

    def line_at(self, position: int) -> bytes:
        """Return the line that begins at *position*; empty if its end is missing."""
        line, newline, _ = os.pread(self._descriptor, _MAX_LINE, position).partition(b"\n")
        return line + newline if newline else b""

    def empty(self) -> None:
        """Truncate the file."""
        os.ftruncate(self._descriptor, 0)
        self.size = self.position = 0

    def close(self) -> None:
        """Release the lock, and remove the file if it is empty."""
        if self.size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


class FileSpool:
    """
    Keeps batches in *folder*, which is created by the first append.

    A file that has reached *max_bytes* refuses appends until it has been emptied, so a long outage
    loses its latest clicks.

    Args:
        new_name: returns a unique file name.
    """

    def __init__(self, folder: Path, *, new_name: Callable[[], str], max_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._new_name = new_name
        self._max_bytes = max_bytes
        self._adopted: list[_File] = []
        self._reported: set[Path] = set()  # paths that could not be opened
        self._has_adopted = False  # every file of the folder
        self._own: _File | None = None
        self._ends: list[int] = []  # the end of each batch that `oldest` returned
        # A cancelled caller leaves its thread running, and may call again meanwhile.
        self._lock = Lock()

    @property
    def kept_bytes(self) -> int:
        return sum(file.size - file.position for file in self._files)

    async def append(self, counted: Counted) -> bool:
        return await self._in_thread(lambda: self._append(encode_event(counted) + b"\n"), failed=False)

    async def oldest(self, limit: int) -> Sequence[Counted]:
        if self._has_adopted and not any(file.size for file in self._files):
            return ()
        return await self._in_thread(lambda: self._oldest(limit), failed=())

    async def drop(self, count: int) -> None:
        if count:
            self._files[0].position = self._ends[count - 1]
            del self._ends[:count]

    async def aclose(self) -> None:
        await self._in_thread(self._close, failed=None)

    async def _in_thread(self, work: Callable[[], T], *, failed: T) -> T:
        def locked() -> T:
            with self._lock:
                try:
                    return work()
                except OSError as error:
                    log.warning("click spool %s failed: %s", self._folder, error)
                    return failed

        return await asyncio.to_thread(locked)

    @property
    def _files(self) -> list[_File]:
        # In the order in which they are read.
        return [*self._adopted, *([self._own] if self._own else [])]

    def _append(self, line: bytes) -> bool:
        if len(line) > _MAX_LINE:
            return False
        if self._own is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / (self._new_name() + _SUFFIX)
            self._own = _File.lock(path, os.O_CREAT | os.O_EXCL)
        if self._own is None or self._own.size + len(line) > self._max_bytes:
            return False
        self._own.append(line)
        return True

    def _oldest(self, limit: int) -> Sequence[Counted]:
        # `drop` counts from the first file, so none is inserted before it while batches are out.
        if not self._has_adopted and not self._ends:
            self._has_adopted = self._adopt()
        for file in self._files:
            batches, self._ends = _batches(file, limit)
            if batches:
                return batches
            file.empty()
            if file is not self._own:
                file.close()
                self._adopted.remove(file)
        return ()

    def _adopt(self) -> bool:
        """Adopt the unlocked files; False if some could not be opened: the next call retries them."""
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._report(self._folder, error)
            return False
        is_complete = True
        for path in paths:
            try:
                file = _File.lock(path)
            except FileNotFoundError:  # its process has just emptied and removed it
                continue
            except OSError as error:
                self._report(path, error)
                is_complete = False
                continue
            if file is not None:
                self._adopted.append(file)
        return is_complete

    def _report(self, path: Path, error: OSError) -> None:
        if path not in self._reported:
            self._reported.add(path)
            log.warning("click spool skips %s for now: %s", path, error.strerror)

    def _close(self) -> None:
        for file in self._files:
            if file.position >= file.size:
                file.empty()
            file.close()
        self._adopted, self._own = [], None


def _batches(file: _File, limit: int) -> tuple[list[Counted], list[int]]:
    """Return the next batches of *file*, and where each ends. Unreadable lines are skipped."""
    batches: list[Counted] = []
    ends: list[int] = []
    position = file.position
    while len(batches) < limit and (line := file.line_at(position)):
        position += len(line)
        try:
            event = decode_event(line)
        except PoisonMessage as error:
            log.warning("click spool skips an unreadable line of %s: %s", file.path, error)
            continue
        if isinstance(event, ClicksCounted | VisitsDescribed):
            batches.append(event)
            ends.append(position)
        else:
            log.warning("click spool skips an event of another kind in %s", file.path)
    return batches, ends
