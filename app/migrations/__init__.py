"""
Numbered SQL files for each database, and the function that applies them.

Several processes may migrate at once: one applies the pending migrations under a lock that ends with its
connection; the others wait and find none pending. Each migration is a transaction, in SQLite all of them
together. What follows the line `OUTSIDE` of a file for PostgreSQL runs after the commit, each statement
alone, and the migration counts when all of it is done: until then it is applied again, from its beginning.
`NNNN.*.rollback.sql` undoes a migration: see `app.migrations.rollback`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from app.domain.errors import HopgateError, SettingsError, Unavailable
from app.migrations.sqlite_file import after, check_log
from app.migrations.sqlite_index import index_links

if TYPE_CHECKING:
    import psycopg

LOCK_WAIT_S = 30
LOCKED = f"another process has held the migration lock for over {LOCK_WAIT_S} s; end it, then retry"
# What separates the transaction of a migration from the statements that run after it, and those.
OUTSIDE = "-- Outside of a transaction, each alone: gateways read and write meanwhile.\n"
_NEXT = "-- next\n"
# libpq gives no code for a refused connection.
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|role .* does not exist"
    r"|database .* does not exist|no pg_hba.conf entry|permission denied|is not permitted to log in"
    r"|authentication failed for user"
)
_NAME = re.compile(r"(\d{4})\.[a-z0-9_]+\.sql")
# Any number that no other program uses as an advisory lock of this database.
_ADVISORY_LOCK = 4_676_716_483


class WrongRole(HopgateError):
    """The database answers and refuses this role: trying again will not help."""


@dataclass(frozen=True, slots=True)
class _Migration:
    version: int
    sql: str


def migrate(database_url: str) -> int:
    """
    Bring the schema of *database_url* up to date; return how many migrations that took.

    A missing SQLite file is created. This process may hold connections to it, but must close them
    before it forks.

    Raises:
        SettingsError: the PostgreSQL driver cannot parse the URL.
        WrongRole: the role may not log in, or may not change the schema.
        Unavailable: no answer, or another process holds the lock for `LOCK_WAIT_S`.
    """
    if database_url.startswith("sqlite:"):
        return _migrate_sqlite(sqlite_path(database_url))
    return _migrate_postgres(database_url)


@cache
def latest_version(technology: str) -> int:
    """
    Return the number of the newest migration for *technology*, `postgres` or `sqlite`.

    It is the schema that the stores of this release need.
    """
    return _migrations(technology)[-1].version


def sqlite_path(database_url: str) -> Path:
    """Return the file in `sqlite:///relative.db` or `sqlite:////absolute.db`."""
    path = database_url.removeprefix("sqlite:///")
    if path == database_url or not path or path == ":memory:":
        raise ValueError("a SQLite URL looks like sqlite:///relative.db or sqlite:////absolute.db")
    return Path(path)


def _migrations(technology: str) -> list[_Migration]:
    files = resources.files(__name__).joinpath(technology).iterdir()
    found = [(match, file) for file in files if (match := _NAME.fullmatch(file.name))]
    return sorted(
        (_Migration(int(match[1]), file.read_text("utf-8")) for match, file in found),
        key=lambda migration: migration.version,
    )


def _migrate_postgres(database_url: str) -> int:
    done = 0
    with translated(database_url), connect(database_url) as connection:
        present = version_of(connection)
        for migration in _migrations("postgres"):
            if migration.version > present:
                _apply(connection, migration)
                done += 1
    return done


def version_of(connection: psycopg.Connection) -> int:
    """Return the schema of a PostgreSQL database; 0 is an empty one, which has a table for it from now on."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    return row[0] if row else 0


@contextmanager
def connect(database_url: str) -> Iterator[psycopg.Connection]:
    """Connect to the primary, without a transaction, and hold the lock of migrations during the body."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(database_url)
    with psycopg.connect(
        database_url,
        autocommit=True,
        connect_timeout=5,
        application_name="hopgate migrate",
        # Of several hosts, the writable one.
        target_session_attrs=str(given.get("target_session_attrs") or "primary"),
    ) as connection:
        connection.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'".encode())
        _lock(connection)
        yield connection


@contextmanager
def translated(database_url: str) -> Iterator[None]:
    """Turn errors of the server at *database_url* into those that `migrate` declares."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable("postgresql", LOCKED) from error
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        # The server lacks the files of an extension.
        raise WrongRole(
            f"the server cannot be used as it is ({error.diag.message_primary}): install PostgreSQL's contrib"
            " modules on it, then run hopgate migrate again"
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        user = conninfo_to_dict(database_url).get("user")
        raise WrongRole(
            f"the role {user} may not change the schema ({error.diag.message_primary}):"
            " run hopgate migrate with the HOPGATE_DATABASE_URL of the owner of the database"
        ) from None
    except psycopg.errors.ProgramLimitExceeded as error:
        raise SettingsError(
            f"a stored link does not fit into an index ({error.diag.message_primary}): shorten it,"
            " then run hopgate migrate again"
        ) from None
    except psycopg.OperationalError as error:
        reason = str(error).partition("\n")[0]
        if _REFUSED.search(reason):
            raise WrongRole(
                f"postgresql refuses the user or database of HOPGATE_DATABASE_URL: {reason}"
            ) from None
        raise Unavailable("postgresql", reason) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise Unavailable("postgresql", str(error).partition("\n")[0]) from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        # The message of the driver quotes the URL, which holds the password.
        raise SettingsError(
            "the database URL cannot be parsed as postgresql://user@host/database;"
            " check its options against libpq's"
        ) from None


def _lock(connection: psycopg.Connection) -> None:
    """
    Take the lock of migrations; it ends with *connection*.

    A session that waits in the server has a snapshot, which CREATE INDEX CONCURRENTLY would wait for.
    """
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_ADVISORY_LOCK]).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > end:
            raise Unavailable("postgresql", LOCKED)
        time.sleep(0.1)


def _apply(connection: psycopg.Connection, migration: _Migration) -> None:
    inside, mark, outside = migration.sql.partition(OUTSIDE)
    note = "INSERT INTO schema_migrations (version) VALUES (%s)"
    with connection.transaction():
        connection.execute(inside.encode())
        if not mark:
            connection.execute(note, [migration.version])
    if mark:
        for statement in outside.split(_NEXT):
            connection.execute(statement.encode())
        connection.execute(note, [migration.version])


@contextmanager
def translated_sqlite(path: Path) -> Iterator[None]:
    """Turn errors of SQLite about the file at *path* into those that `migrate` declares."""
    import apsw

    try:
        yield
    except apsw.BusyError as error:
        raise Unavailable("sqlite", LOCKED) from error
    except (
        apsw.CantOpenError, apsw.CorruptError, apsw.FullError, apsw.IOError, apsw.NotADBError,
        apsw.PermissionsError, apsw.ReadOnlyError,
    ) as error:  # fmt: skip
        raise Unavailable("sqlite", f"{path}: {error}") from error


def _migrate_sqlite(path: Path) -> int:
    # Never the standard library's sqlite3, which is another copy of SQLite: closing a file in one
    # copy releases the locks that the other copy holds on it in the same process.
    import apsw

    done = 0
    check_log(path)
    with translated_sqlite(path):
        connection = apsw.Connection(str(path))
        try:
            connection.set_busy_timeout(LOCK_WAIT_S * 1000)
            if connection.pragma("user_version") >= latest_version("sqlite"):
                return 0  # without the lock, which would wait for a gateway that writes
            connection.pragma("journal_mode", "wal")
            connection.execute("BEGIN IMMEDIATE")
            present = connection.pragma("user_version")
            for migration in _migrations("sqlite"):
                if migration.version > present:
                    connection.execute(migration.sql).fetchall()
                    connection.pragma("user_version", migration.version)
                    done += 1
            index_links(connection)
            count = connection.pragma("application_id")
            connection.pragma("application_id", after(count) if count else 1 + secrets.randbelow(1 << 29))
            connection.execute("COMMIT")
        finally:
            connection.close(force=True)  # rolls a failed transaction back
    return done
