"""
The way back: undo the newest migrations, so that an earlier release finds the schema that it was made for.

Gateways of the release before serve on the schema of this one, so going back one release needs none of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from app.domain.errors import SettingsError
from app.migrations import (
    LOCK_WAIT_S,
    connect,
    latest_version,
    sqlite_path,
    translated,
    translated_sqlite,
)
from app.migrations.sqlite_file import after, check_log


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
    technology = "sqlite" if database_url.startswith("sqlite:") else "postgres"
    latest = latest_version(technology)
    if not 1 <= to <= latest:
        raise SettingsError(f"the schemas that this release can go back to are 1 to {latest}, not {to}")
    present = _present(database_url)
    if present > latest:
        raise SettingsError(f"the schema is {present}, that of a later release: go back with that one")
    if present < to:
        raise SettingsError(f"the schema is {present}, earlier than {to}: only hopgate migrate goes forward")
    found = {
        int(file.name[:4]): file.read_text("utf-8")
        for file in resources.files("app.migrations").joinpath(technology).iterdir()
        if file.name.endswith(".rollback.sql")
    }
    return [Rollback(version, _loses(found[version]), found[version]) for version in range(present, to, -1)]


def roll_back(database_url: str, to: int) -> int:
    """
    Undo every migration after *to*, newest first, and return how many those were.

    On PostgreSQL each is a transaction, and if one fails those before it are undone; in SQLite they are one
    transaction together. No gateway and no worker may run.

    Raises:
        SettingsError: as `rollbacks`, or stored links do not fit into the earlier schema.
        WrongRole, Unavailable: as `migrate`.
    """
    steps = rollbacks(database_url, to)
    if database_url.startswith("sqlite:"):
        _roll_back_sqlite(database_url, steps)
    else:
        _roll_back_postgres(database_url, steps)
    return len(steps)


def _loses(sql: str) -> str:
    """Return the comment that a rollback begins with, on one line."""
    lines = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines)


def _present(database_url: str) -> int:
    if not database_url.startswith("sqlite:"):
        import psycopg

        with translated(database_url), connect(database_url) as connection:
            try:
                row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
            except psycopg.errors.UndefinedTable:
                row = None
            return row[0] if row else 0
    import apsw

    path = sqlite_path(database_url)
    check_log(path)
    with translated_sqlite(path):
        file = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            return int(file.pragma("user_version"))
        finally:
            file.close()


def _roll_back_postgres(database_url: str, steps: list[Rollback]) -> None:
    import psycopg

    with translated(database_url), connect(database_url) as connection:
        for step in steps:
            try:
                with connection.transaction():
                    connection.execute(step.sql.encode())
                    connection.execute("DELETE FROM schema_migrations WHERE version = %s", [step.version])
            except psycopg.errors.CheckViolation as error:
                raise SettingsError(
                    f"schema {step.version} cannot be undone: {error.diag.message_primary};"
                    " remove or shorten the links that need it first"
                ) from None


def _roll_back_sqlite(database_url: str, steps: list[Rollback]) -> None:
    import apsw

    path = sqlite_path(database_url)
    with translated_sqlite(path):
        file = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            file.set_busy_timeout(LOCK_WAIT_S * 1000)
            file.execute("BEGIN IMMEDIATE")
            for step in steps:
                file.execute(step.sql).fetchall()
                file.pragma("user_version", step.version - 1)
            # Counted as every commit is: the log beside the file belongs to it.
            file.pragma("application_id", after(file.pragma("application_id")))
            file.execute("COMMIT")
        finally:
            file.close(force=True)  # rolls a failed transaction back
