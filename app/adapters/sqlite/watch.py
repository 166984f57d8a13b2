"""Notices that the file under a running store is not the file that it opened."""

from __future__ import annotations

import logging
from pathlib import Path

import apsw

from app.domain.errors import Refused
from app.migrations.sqlite_file import count_in, first_bytes, growth

log = logging.getLogger(__name__)

# Commits between two looks, with room for those of other processes.
_MOST_COMMITS = 1_000_000


class FileWatch:
    """
    The identity of the file of *db* at *path*, of its log, and its count of commits.

    Removed, replaced by another file, or written over: what is stored afterwards is lost or damages the
    other file. So a loss is final until the process is started again.
    """

    def __init__(self, db: apsw.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._log = Path(f"{path}-wal")
        self._file_identity = _identity(path)
        self._log_identity: tuple[int, int] | None = None
        self._count = self._held = 0
        self.loss: str | None = None

    def look(self) -> None:
        """Compare. Raises Refused if the file was lost, now or earlier."""
        if self.loss is None:
            try:
                what = self._difference()
            except OSError as error:
                what = f"cannot be read ({error.strerror})"
            if what is not None:
                self.loss = (
                    f"{self._path} {what} under the running gateway, which stores nothing any more:"
                    " stop it, restore the right file (hopgate restore), and start it again"
                )
                log.critical("sqlite: %s", self.loss)
        if self.loss is not None:
            raise Refused("sqlite", self.loss)

    def _difference(self) -> str | None:
        if (found := _identity(self._path)) != self._file_identity:
            return "was removed" if found is None else "was replaced by another file"
        if (found := _identity(self._log)) != self._log_identity:
            if self._log_identity is not None:
                return "has lost its write-ahead log"
            self._log_identity = found
        # In this order: the file never has commits that the connection does not see.
        held = count_in(first_bytes(self._path))
        if self._held and (not held or growth(self._held, held) > _MOST_COMMITS):
            return "was written over"
        count = self._db.pragma("application_id")
        if any(before and growth(before, count) > _MOST_COMMITS for before in (held, self._count)):
            return "was written over"
        self._held, self._count = held, count
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
