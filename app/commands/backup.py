"""`hopgate backup` and `hopgate restore`: a copy of the store in one file, and the way back."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from app.bootstrap import open_cache
from app.commands import running
from app.commands.export_links import UnwritableFile
from app.commands.import_links import UnreadableFile
from app.domain.errors import Unavailable
from app.migrations import latest_version
from app.settings import Settings

_PAGES_A_STEP = 2_000
# Not in a backup: a session that was ended meanwhile would count again after the restore.
_SESSIONS = "console_sessions"
# libpq's names of the parts of a URL, and of the variables that its programs read.
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}

Say = Callable[[str], None]


def backup(settings: Settings, target: Path, say: Say) -> None:
    """
    Copy the store to *target*, also while gateways serve; *target* is complete or not there.

    Raises:
        UnwritableFile: it exists, or cannot be written.
        Unavailable: the store does not answer, or the copy is damaged.
    """
    if target.exists():
        raise UnwritableFile(f"{target} exists already")
    draft = target.with_name(f".{target.name}.part")
    try:
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        if settings.database_url is None:
            running.require_database(settings)
            _copy(settings.sqlite_path, draft, say)
            _check_copy(draft)
            _end_sessions(draft)
        else:
            url = settings.database_url.get_secret_value()
            _parts(url)  # without the driver it ends here, before a word of progress
            say("pg_dump runs")
            _run(url, ["pg_dump", "--format=custom", f"--exclude-table-data={_SESSIONS}", f"--file={draft}"])
        _sync(draft)
        draft.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise UnwritableFile(f"{target} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    say(f"{target}: {target.stat().st_size:,} bytes")


# https://sqlite.org/fileformat.html: the first bytes of every database.
_SQLITE_HEADER = b"SQLite format 3\0"


def restore(settings: Settings, source: Path, say: Say) -> None:
    """
    Replace the store by the copy in *source*. The former embedded file is kept beside it, as `.replaced`.

    Raises:
        DataInUse: a gateway serves from the store.
        UnreadableFile: *source* is no complete backup; nothing was changed.
        Unavailable: the store does not answer.
    """
    if not source.is_file():
        raise UnreadableFile(f"{source} is no file")
    if settings.database_url is None:
        _restore_file(settings, source, say)
    else:
        _restore_server(settings, settings.database_url.get_secret_value(), source, say)


# --- embedded ----------------------------------------------------------------------------


def _first_bytes(source: Path) -> bytes:
    with source.open("rb") as file:
        return file.read(len(_SQLITE_HEADER))


def _restore_file(settings: Settings, source: Path, say: Say) -> None:
    path = settings.sqlite_path
    draft = path.with_name(f"{path.name}.part")
    try:
        # Before the folder is made. What is only found while copying leaves the folder, and no database.
        if _first_bytes(source) != _SQLITE_HEADER:
            raise UnreadableFile(f"{source} is no backup of an embedded store")
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with running.stopped(settings):
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            # Read through SQLite: a file with a log of its own is copied with what is in the log.
            _copy(source, draft, say)
            _check_copy(draft)
            _end_sessions(draft)  # a copy by other means has them
            _sync(draft)
            # The log goes first: beside the restored file it would be replayed into it.
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").replace(f"{path}.replaced{suffix}")
            had_one = path.exists()
            if had_one:
                kept = Path(f"{path}.replaced")
                kept.unlink(missing_ok=True)
                os.link(path, kept)
            draft.replace(path)
            _sync(path.parent)
    except OSError as error:
        raise UnwritableFile(f"{path} cannot be restored: {error.strerror}") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    say(f"restored {path}" + (f"; the former file is {path.name}.replaced" if had_one else ""))


def _copy(source: Path, target: Path, say: Say) -> None:
    """
    Copy a database page by page, consistently, while others write to it.

    Raises:
        OSError: *target* cannot be written; the store is well.
    """
    import apsw

    from app.migrations.sqlite_file import check_log

    check_log(source)
    try:
        reading = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
        writing = apsw.Connection(str(target))
        try:
            reading.set_busy_timeout(5_000)
            reading.pragma("user_version")
            with writing.backup("main", reading, "main") as copying:
                shown = 0
                while not copying.done:
                    copying.step(_PAGES_A_STEP)
                    done = 100 - 100 * copying.remaining // max(1, copying.page_count)
                    if done >= shown + 10 and not copying.done:
                        shown = done
                        say(f"{done} %")
            # One file without a log.
            writing.pragma("journal_mode", "delete")
        finally:
            writing.close()
            reading.close()
    except (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError) as error:
        raise UnreadableFile(f"{source} is no readable database: {error}") from None
    except apsw.Error as error:
        # The copy alone is written to.
        if isinstance(error, apsw.FullError):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE:
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
        raise Unavailable("sqlite", f"{type(error).__name__}: {error}") from error


def _check_copy(path: Path) -> None:
    import apsw

    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        [(result,), *_] = db.execute("PRAGMA integrity_check(1)").fetchall()
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
        version = db.pragma("user_version")
    except apsw.Error as error:
        raise UnreadableFile(f"the database is damaged: {error}") from None
    finally:
        db.close()
    if result != "ok":
        raise UnreadableFile(f"the database is damaged: {result}")
    if "links" not in tables or not version:
        raise UnreadableFile("the file is a database, but not one of Hopgate")
    if version > latest_version("sqlite"):
        raise UnreadableFile("the file is from a newer version of Hopgate")


def _end_sessions(path: Path) -> None:
    """Delete the sessions of the console in the copy *path*; an earlier schema has none."""
    import apsw

    try:
        with closing(apsw.Connection(str(path))) as db:
            if db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (_SESSIONS,)).fetchall():
                db.execute(f"DELETE FROM {_SESSIONS}")
    except apsw.Error as error:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- PostgreSQL --------------------------------------------------------------------------


def check_idle(url: str) -> None:
    """
    Check that no gateway and no worker is connected to the database *url*.

    Raises:
        DataInUse: one is.
        Unavailable: the database does not answer.
    """
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            rows = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hopgate'"
                " AND datname = current_database()"
            ).fetchone()
    except psycopg.Error as error:
        raise Unavailable("postgresql", str(error).partition("\n")[0]) from None
    if rows and rows[0]:
        raise running.DataInUse(f"{rows[0]} connections of gateways and workers are open: stop them first")


def _restore_server(settings: Settings, url: str, source: Path, say: Say) -> None:
    name = _parts(url).get("dbname", "")
    check_idle(url)
    say("pg_restore runs")
    options = ["--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error"]
    _run(url, ["pg_restore", *options, f"--dbname={name}", str(source)])
    _end_server_sessions(url)
    # Redis holds versions that are newer than the restored ones, and newer wins.
    try:
        dropped = asyncio.run(empty_cache(settings))
    except Unavailable as error:
        reason = f"{error.reason}. The store is restored; empty Redis before a gateway starts: FLUSHDB"
        raise Unavailable("redis", reason) from None
    say(f"restored; {dropped} cached links were dropped")


def _end_server_sessions(url: str) -> None:
    """Delete the sessions of the console: those of a dump by other means, and those before an old dump."""
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            if connection.execute("SELECT to_regclass(%s)", [_SESSIONS]).fetchone() != (None,):
                connection.execute(f"DELETE FROM {_SESSIONS}".encode())
    except psycopg.Error as error:
        raise Unavailable("postgresql", str(error).partition("\n")[0]) from None


async def empty_cache(settings: Settings) -> int:
    """Drop every link from the cache; return how many those were. Raises Unavailable."""
    dropped = cursor = 0
    async with open_cache(settings) as cache:
        while True:
            page = await cache.scan(cursor)
            await cache.forget(page.slugs)
            dropped += len(page.slugs)
            cursor = page.next_cursor
            if not cursor:
                return dropped


def _parts(url: str) -> Mapping[str, str]:
    from app.adapters.postgres.pool import read_url

    return {name: str(value) for name, value in read_url(url, "primary").items()}


def _run(url: str, command: list[str]) -> None:
    """Run a program of PostgreSQL. The password is in its environment, where other users cannot read it."""
    variables = {_VARIABLES[name]: value for name, value in _parts(url).items() if name in _VARIABLES}
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs
            command,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise Unavailable("postgresql", f"{command[0]} is not installed (postgresql-client)") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise Unavailable("postgresql", f"{command[0]} failed: {reason}")
