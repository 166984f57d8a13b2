"""
The way back: undo the newest migrations, so that an earlier release finds the schema that it was made for.

Gateways of the release before serve on the schema of this one, so going back one release needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from app.domain.errors import SettingsError
from app.migrations import (
    LOCK_WAIT_S,
    connect,
    latest_version,
    sqlite_path,
    translated,
    translated_sqlite,
    version_of,
)
from app.migrations.sqlite_file import after, check_log

if TYPE_CHECKING:
    import apsw
    import psycopg


@dataclass(frozen=True, slots=True)
class Rollback:
    """What undoes the migration *version*: *loses* says what is destroyed, empty if nothing is."""

    version: int
    loses: str
    sql: str


def rollbacks(database_url: str, to: int) -> list[Rollback]:
    """
    Return what brings the schema of *database_url* back to *to*, newest first; empty if it is there.

    Raises:
        SettingsError: this release has no schema *to*, or the present one is earlier, or of a later release.
        WrongRole, Unavailable: as `migrate`.
    """
    with _opened(database_url) as schema:
        return _steps(schema, to)


def roll_back(database_url: str, to: int) -> int:
    """
    Undo every migration after *to*, newest first, and return how many those were.

    On PostgreSQL each is a transaction, and if one fails those before it are undone; in SQLite they are one
    transaction together. No gateway and no worker may run.

    Raises:
        SettingsError: as `rollbacks`, or stored links do not fit into the earlier schema.
        WrongRole, Unavailable: as `migrate`.
    """
    with _opened(database_url) as schema:
        steps = _steps(schema, to)
        for step in steps:
            schema.undo(step)
        return len(steps)


def _steps(schema: _Postgres | _Sqlite, to: int) -> list[Rollback]:
    latest = latest_version(schema.technology)
    if not 1 <= to <= latest:
        raise SettingsError(f"the schemas that this release can go back to are 1 to {latest}, not {to}")
    present = schema.version()
    if present > latest:
        raise SettingsError(f"the schema is {present}, that of a later release: go back with that one")
    if present < to:
        raise SettingsError(f"the schema is {present}, earlier than {to}: only hopgate migrate goes forward")
    found = {
        int(file.name[:4]): file.read_text("utf-8")
        for file in resources.files("app.migrations").joinpath(schema.technology).iterdir()
        if file.name.endswith(".rollback.sql")
    }
    return [Rollback(version, _loses(found[version]), found[version]) for version in range(present, to, -1)]


def _loses(sql: str) -> str:
    """Return the comment that a rollback begins with, on one line."""
    lines = takewhile(lambda line: line.startswith("--"), sql.splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def _opened(database_url: str) -> AbstractContextManager[_Postgres | _Sqlite]:
    """Open the database with the lock of migrations, so that the schema stays what it is meanwhile."""
    if database_url.startswith("sqlite:"):
        return _open_sqlite(sqlite_path(database_url))
    return _open_postgres(database_url)


@contextmanager
def _open_postgres(database_url: str) -> Iterator[_Postgres]:
    with translated(database_url), connect(database_url) as connection:
        yield _Postgres(connection)


class _Postgres:
    technology = "postgres"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def version(self) -> int:
        return version_of(self._connection)

    def undo(self, step: Rollback) -> None:
        from psycopg.errors import CheckViolation

        try:
            with self._connection.transaction():
                self._connection.execute(step.sql.encode())
                self._connection.execute("DELETE FROM schema_migrations WHERE version = %s", [step.version])
        except CheckViolation as error:
            raise SettingsError(
                f"schema {step.version} cannot be undone: {error.diag.message_primary};"
                " remove or shorten the links that need it first"
            ) from None


@contextmanager
def _open_sqlite(path: Path) -> Iterator[_Sqlite]:
    import apsw

    check_log(path)
    with translated_sqlite(path):
        file = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            file.set_busy_timeout(LOCK_WAIT_S * 1000)
            file.execute("BEGIN IMMEDIATE")
            schema = _Sqlite(file)
            yield schema
            schema.commit()
        finally:
            file.close(force=True)  # rolls a failed transaction back


class _Sqlite:
    technology = "sqlite"

    def __init__(self, file: apsw.Connection) -> None:
        self._file = file
        self._has_changed = False

    def version(self) -> int:
        return int(self._file.pragma("user_version"))

    def undo(self, step: Rollback) -> None:
        self._file.execute(step.sql).fetchall()
        self._file.pragma("user_version", step.version - 1)
        self._has_changed = True

    def commit(self) -> None:
        if self._has_changed:
            # Counted as every commit is: the log beside the file belongs to it.
            self._file.pragma("application_id", after(self._file.pragma("application_id")))
            self._file.execute("COMMIT")
