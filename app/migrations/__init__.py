"""
Numbered SQL per database, and what applies it.

Several processes may migrate at once: one does the work under a lock that ends with its
connection, the others wait and find nothing left to do. All that is pending is applied in
one transaction. `NNNN.*.rollback.sql` undoes a migration; it is run by hand, never from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from app.domain.errors import Unavailable

LOCK_WAIT_S = 30
_NAME = re.compile(r"(\d{4})\.[a-z0-9_]+\.sql")
# Any number that no other program locks in this database.
_ADVISORY_LOCK = 4_676_716_483


@dataclass(frozen=True, slots=True)
class _Migration:
    version: int
    sql: str


def migrate(database_url: str) -> int:
    """
    Bring the schema of *database_url* up to date; return how many migrations that took.

    A missing SQLite file is created. Close every connection to it that this process holds
    before it forks, not before this.

    Raises:
        SettingsError: PostgreSQL's driver cannot read the URL.
        Unavailable: no answer, no right, or another process migrates for over `LOCK_WAIT_S`.
    """
    if database_url.startswith("sqlite:"):
        return _migrate_sqlite(sqlite_path(database_url))
    return _migrate_postgres(database_url)


def latest_version(technology: str) -> int:
    """Return the number of the newest migration for *technology*, `postgres` or `sqlite`."""
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
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from app.settings import SettingsError

    done = 0
    try:
        given = conninfo_to_dict(database_url)
        with psycopg.connect(
            database_url,
            connect_timeout=5,
            application_name="hopgate migrate",
            # Of several hosts, the one that can be written to.
            target_session_attrs=str(given.get("target_session_attrs") or "primary"),
        ) as connection:
            connection.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'".encode())
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations"
                " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
            present = row[0] if row else 0
            for migration in _migrations("postgres"):
                if migration.version > present:
                    connection.execute(migration.sql.encode())
                    connection.execute(
                        "INSERT INTO schema_migrations (version) VALUES (%s)", [migration.version]
                    )
                    done += 1
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable("postgresql", _LOCKED) from error
    except (
        psycopg.OperationalError,
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.ReadOnlySqlTransaction,
    ) as error:
        raise Unavailable("postgresql", str(error).partition("\n")[0]) from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        # It quotes the URL, which holds the password.
        raise SettingsError(
            "the database URL cannot be parsed as postgresql://user@host/database;"
            " does libpq know each of its options?"
        ) from None
    return done


def _migrate_sqlite(path: Path) -> int:
    # Never the standard library's sqlite3: closing a file in one copy of SQLite drops the
    # locks that another copy in the same process holds on it.
    import apsw

    done = 0
    try:
        connection = apsw.Connection(str(path))
        try:
            connection.set_busy_timeout(LOCK_WAIT_S * 1000)
            if connection.pragma("user_version") >= latest_version("sqlite"):
                return 0  # without a lock: a gateway may be writing right now
            connection.pragma("journal_mode", "wal")
            connection.execute("BEGIN IMMEDIATE")
            present = connection.pragma("user_version")
            for migration in _migrations("sqlite"):
                if migration.version > present:
                    connection.execute(migration.sql).fetchall()
                    connection.pragma("user_version", migration.version)
                    done += 1
            connection.execute("COMMIT")
        finally:
            connection.close(force=True)  # a transaction that failed is rolled back by it
    except apsw.BusyError as error:
        raise Unavailable("sqlite", _LOCKED) from error
    except (
        apsw.CantOpenError, apsw.CorruptError, apsw.FullError, apsw.IOError, apsw.NotADBError,
        apsw.PermissionsError, apsw.ReadOnlyError,
    ) as error:  # fmt: skip
        raise Unavailable("sqlite", f"{path}: {error}") from error
    return done


_LOCKED = f"another process holds the schema's lock for over {LOCK_WAIT_S} s; end it, then try again"
