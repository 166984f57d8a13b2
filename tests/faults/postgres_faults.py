"""What breaks in PostgreSQL alone, beyond being killed, stopped or cut off."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from tests.faults.drill import CannotPlay
from tests.faults.faults import refused
from tests.faults.stage import Stage
from tests.servers.hopgate import eventually


@contextmanager
def postgres_restarted(stage: Stage) -> Iterator[None]:
    """`pg_ctl stop -m immediate`, and back at the end."""
    stage.servers.postgres.stop("immediate")
    try:
        yield
    finally:
        stage.servers.postgres.start()


@contextmanager
def postgres_read_only(stage: Stage) -> Iterator[None]:
    """Every transaction is read-only, as on a full disk or after a failover to a replica."""
    _alter_system(stage, "default_transaction_read_only = on")
    try:
        yield
    finally:
        _alter_system(stage, "default_transaction_read_only = off")


@contextmanager
def postgres_disk_full(stage: Stage) -> Iterator[None]:
    """
    The tables and indexes are on a small file system, and something else has filled it.

    The write-ahead log is not: PostgreSQL ends itself when that cannot grow, which is a restart.
    """
    server = stage.servers.postgres
    with _small_file_system(server.directory / "small", server.user) as place, _moved_to(stage, place):
        filler = place / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def _small_file_system(place: Path, owner: str | None) -> Iterator[Path]:
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotPlay(f"a file system cannot be mounted here: {done.stderr.strip()}")
        try:
            if owner is not None:
                shutil.chown(place, owner)
            yield place
        finally:
            # Lazily: the server may have files open that are deleted already.
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    finally:
        place.rmdir()


@contextmanager
def _moved_to(stage: Stage, place: Path) -> Iterator[None]:
    """Everything that Hopgate stores is at *place* meanwhile."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'".encode())
        _move_to(connection, "small")
        yield
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"], autocommit=True) as connection:
        _move_to(connection, "pg_default")
        connection.execute("DROP TABLESPACE small")


def _move_to(connection: psycopg.Connection[tuple[str, str]], space: str) -> None:
    # One after the other: who locks several at once may lock them in another order than Hopgate.
    for kind, name in connection.execute(_RELATIONS).fetchall():
        connection.execute(f"ALTER {kind} {name} SET TABLESPACE {space}".encode())


_RELATIONS = (
    "SELECT CASE relkind WHEN 'r' THEN 'TABLE' ELSE 'INDEX' END, oid::regclass::text FROM pg_class"
    " WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace ORDER BY relkind DESC"
)


@contextmanager
def postgres_crowded(stage: Stage) -> Iterator[None]:
    """
    Others hold every connection there is.

    Those of Hopgate too: they break, and nobody gets through until others have taken them. Throwing
    Hopgate out instead is a race that it wins again and again.
    """
    url = stage.servers.postgres.url()
    with ExitStack() as crowd, psycopg.connect(url, autocommit=True) as admin:
        # Slowly: a hundred new sessions at once are a load of their own.
        _take_every_connection(url, crowd, pause_s=0.01)
        with refused("postgres")(stage):
            eventually(lambda: admin.execute(_OURS).fetchone() is None, 5, "Hopgate's sessions end")
            _take_every_connection(url, crowd)
        yield


def _take_every_connection(url: str, crowd: ExitStack, *, pause_s: float = 0.0) -> None:
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            crowd.enter_context(psycopg.connect(url, connect_timeout=2))
            time.sleep(pause_s)


@contextmanager
def postgres_terminates(stage: Stage) -> Iterator[None]:
    """Every connection of Hopgate is ended by an administrator."""
    with psycopg.connect(stage.servers.postgres.url(), autocommit=True) as connection:
        connection.execute(_THROW_OUT)
    yield


@contextmanager
def links_locked(stage: Stage) -> Iterator[None]:
    """Somebody holds the table of links: nothing reads or writes it."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        connection.execute("SET lock_timeout = '2s'")
        connection.execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


_OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hopgate'"
_THROW_OUT = f"SELECT pg_terminate_backend(pid) FROM ({_OURS}) AS ours"


def _alter_system(stage: Stage, setting: str) -> None:
    with psycopg.connect(stage.servers.postgres.url(), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")
