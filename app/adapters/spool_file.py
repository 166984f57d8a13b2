"""
`ClickSpool` in files: one for each process, a line for each batch.

A file belongs to the process that holds the lock on it, which ends with the process, however it
ends. Whoever opens a folder later adopts the files that nobody holds any more.
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
from app.domain.events import ClicksCounted
from app.wire import decode_event, encode_event

log = logging.getLogger(__name__)

T = TypeVar("T")

_SUFFIX = ".clicks"
_MAX_LINE = 1 << 20


class _File:
    """One open and locked file; `position` is where the oldest batch begins that was not dropped."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self.position = 0
        self._descriptor = descriptor

    @classmethod
    def lock(cls, path: Path, flags: int = 0) -> Self | None:
        """Open and lock *path*; None if somebody holds it."""
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
        """Write *line* to the disk, or nothing of it."""
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError("the disk is full")
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(line)

    def line_at(self, position: int) -> bytes:
        """Return the line that begins there; nothing if it was not written to its end."""
        line, newline, _ = os.pread(self._descriptor, _MAX_LINE, position).partition(b"\n")
        return line + newline if newline else b""

    def empty(self) -> None:
        """Forget everything in it."""
        os.ftruncate(self._descriptor, 0)
        self.size = self.position = 0

    def close(self) -> None:
        """Let go of it, and remove it if it is empty."""
        if self.size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


class FileSpool:
    """
    Keeps batches in *folder*, which is made when it is first needed.

    A file that has reached *max_bytes* takes nothing more until it was emptied: of a long
    outage, the beginning is kept.

    Args:
        new_name: makes a file name that was never made before.
    """

    def __init__(self, folder: Path, *, new_name: Callable[[], str], max_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._new_name = new_name
        self._max_bytes = max_bytes
        self._adopted: list[_File] = []
        self._left_out: set[Path] = set()
        self._has_looked = False  # and has left nothing out
        self._own: _File | None = None
        self._ends: list[int] = []  # where each batch ends that `oldest` gave out
        # A caller that was cancelled leaves its thread behind, and may come back.
        self._one_at_a_time = Lock()

    async def append(self, counted: ClicksCounted) -> bool:
        """See `ClickSpool.append`."""
        return await self._in_thread(lambda: self._append(encode_event(counted) + b"\n"), failed=False)

    async def oldest(self, limit: int) -> Sequence[ClicksCounted]:
        """See `ClickSpool.oldest`."""
        if self._has_looked and not any(file.size for file in self._reading):
            return ()
        return await self._in_thread(lambda: self._oldest(limit), failed=())

    async def drop(self, count: int) -> None:
        """See `ClickSpool.drop`."""
        if count:
            self._reading[0].position = self._ends[count - 1]
            del self._ends[:count]

    async def aclose(self) -> None:
        """See `ClickSpool.aclose`."""
        await self._in_thread(self._close, failed=None)

    async def _in_thread(self, work: Callable[[], T], *, failed: T) -> T:
        def locked() -> T:
            with self._one_at_a_time:
                try:
                    return work()
                except OSError as error:
                    log.warning("the clicks in %s: %s", self._folder, error)
                    return failed

        return await asyncio.to_thread(locked)

    @property
    def _reading(self) -> list[_File]:
        return [*self._adopted, *([self._own] if self._own else [])]

    def _append(self, line: bytes) -> bool:
        if self._own is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / (self._new_name() + _SUFFIX)
            self._own = _File.lock(path, os.O_CREAT | os.O_EXCL)
        if self._own is None or self._own.size + len(line) > self._max_bytes:
            return False
        self._own.append(line)
        return True

    def _oldest(self, limit: int) -> Sequence[ClicksCounted]:
        # What was given out and not dropped yet must stay the first there is.
        if not self._has_looked and not self._ends:
            self._has_looked = self._adopt()
        for file in self._reading:
            batches, self._ends = _batches(file, limit)
            if batches:
                return batches
            file.empty()
            if file is not self._own:
                file.close()
                self._adopted.remove(file)
        return ()

    def _adopt(self) -> bool:
        """Adopt the files that nobody holds; False if some could not be opened, and may be later."""
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._leave_out(self._folder, error)
            return False
        is_complete = True
        for path in paths:
            try:
                file = _File.lock(path)
            except FileNotFoundError:  # whoever held it has just emptied it
                continue
            except OSError as error:
                self._leave_out(path, error)
                is_complete = False
                continue
            if file is not None:
                self._adopted.append(file)
        return is_complete

    def _leave_out(self, path: Path, error: OSError) -> None:
        if path not in self._left_out:
            self._left_out.add(path)
            log.warning("the clicks in %s are left out for now: %s", path, error.strerror)

    def _close(self) -> None:
        for file in self._reading:
            if file.position >= file.size:
                file.empty()
            file.close()
        self._adopted, self._own = [], None


def _batches(file: _File, limit: int) -> tuple[list[ClicksCounted], list[int]]:
    """Return the next batches of *file*, and where each ends. What cannot be read is passed over."""
    batches: list[ClicksCounted] = []
    ends: list[int] = []
    position = file.position
    while len(batches) < limit and (line := file.line_at(position)):
        position += len(line)
        try:
            event = decode_event(line)
        except PoisonMessage as error:
            log.warning("a line of %s is left out: %s", file.path, error)
            continue
        if isinstance(event, ClicksCounted):
            batches.append(event)
            ends.append(position)
    return batches, ends
