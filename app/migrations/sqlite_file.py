"""
Does a write-ahead log belong to the SQLite file beside it?

SQLite replays any log that it finds. Beside a file that was restored from a backup, the log of the
former file replaces some pages and not others: the result is neither, and malformed. So each commit of
Hopgate counts up `application_id`, a number in the header of the file, which begins at random. The first
commit in the log tells what the file had when the log began, and the last what it may have by now.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from app.domain.errors import Unavailable

_MODULUS = 1 << 30
_LOG_HEADER, _FRAME_HEADER = 32, 24
_ID_AT = 68
_MAGIC = b"SQLite format 3\x00"
_ATTEMPTS, _PAUSE_S = 5, 0.02
# Descriptors by device and inode, never closed: closing one releases the locks that SQLite holds on the
# same file in this process.
_kept: dict[tuple[int, int], int] = {}


def after(count: int) -> int:
    """Return the count of the commit that follows *count*; never 0, which means that there is none."""
    return count % (_MODULUS - 1) + 1


def count_in(header: bytes) -> int:
    """Return the count of commits in the first page of a file; 0 if there is none."""
    if len(header) < _ID_AT + 4 or not header.startswith(_MAGIC):
        return 0
    return int.from_bytes(header[_ID_AT : _ID_AT + 4], "big")


def first_bytes(path: Path) -> bytes:
    """Return the beginning of the header of the file at *path*. Raises OSError."""
    found = path.stat()
    identity = found.st_dev, found.st_ino
    if identity not in _kept:
        _kept[identity] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return os.pread(_kept[identity], _ID_AT + 4, 0)


def growth(before: int, now: int) -> int:
    """Return how many commits lie between two counts; a huge number if *now* is the earlier one."""
    return (now - before) % (_MODULUS - 1)


def is_earlier(one: int, other: int) -> bool:
    """Was *one* counted before *other*?"""
    return 0 < growth(one, other) < _MODULUS // 2


def check_log(path: Path) -> None:
    """
    Check that the log beside *path*, if any, belongs to it. Call it before SQLite opens the file.

    Raises:
        Unavailable: it does not, or one of the two cannot be read.
    """
    for attempt in range(_ATTEMPTS):
        try:
            if _belongs(path):
                return
        except OSError as error:
            raise Unavailable("sqlite", f"{error.filename}: {error.strerror}") from error
        # A checkpoint of another process between the two reads looks the same.
        time.sleep(_PAUSE_S * (attempt + 1))
    raise Unavailable(
        "sqlite",
        f"{path} is not the file that {path.name}-wal belongs to: another was copied over it."
        f" To keep the copy, remove {path.name}-wal and {path.name}-shm; next time use `hopgate restore`",
    )


def _belongs(path: Path) -> bool:
    counts = _counts_in_log(Path(f"{path}-wal"))
    if counts is None or not path.exists():
        return True
    first, last = counts
    held = count_in(first_bytes(path))
    # A file or a log from before the count existed.
    if not first or not last or not held:
        return True
    return not is_earlier(after(held), first) and not is_earlier(last, held)


def _counts_in_log(path: Path) -> tuple[int, int] | None:
    """Return the counts of the first and the last commit in a log; None if it has no commit."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        header = file.read(_LOG_HEADER)
        if len(header) < _LOG_HEADER:
            return None
        magic, _, page_size, _ = struct.unpack(">4I", header[:16])
        if magic & ~1 != 0x377F0682:
            return None
        counts: list[int] = []
        pending: int | None = None
        position = _LOG_HEADER
        while len(frame := file.read(_FRAME_HEADER)) == _FRAME_HEADER:
            page, is_commit = struct.unpack(">2I", frame[:8])
            if frame[8:16] != header[16:24]:
                break  # left over from before the log began anew
            if page == 1:
                pending = count_in(file.read(_ID_AT + 4))
            if is_commit and pending is not None:
                counts = [*counts[:1], pending]
            position += _FRAME_HEADER + page_size
            file.seek(position)
    return (counts[0], counts[-1]) if counts else None
