"""Faults of PostgreSQL beyond its process and its network."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from tests.faults.breaks.network import refused
from tests.faults.harness.drill import CannotPlay
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import eventually


@contextmanager
def restarted(stage: Stage) -> Iterator[None]:
    """`pg_ctl stop -m immediate`, then start."""
    stage.servers.postgres.stop("immediate")
    try:
        yield
    finally:
        stage.servers.postgres.start()


@contextmanager
def read_only(stage: Stage) -> Iterator[None]:
    """Make every transaction read-only, as after a failover to a replica."""
    _alter_system(stage, "default_transaction_read_only = on")
    try:
        yield
    finally:
        _alter_system(stage, "default_transaction_read_only = off")


@contextmanager
def disk_full(stage: Stage) -> Iterator[None]:
    """
    Move the tables and indexes to a small file system and fill it.

    The write-ahead log stays: PostgreSQL shuts down when that cannot grow, which is another fault.
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
            raise CannotPlay(f"cannot mount a file system: {done.stderr.strip()}")
        try:
            if owner is not None:
                shutil.chown(place, owner)
            yield place
        finally:
            # Lazily: the server may still hold deleted files open.
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    finally:
        place.rmdir()


@contextmanager
def _moved_to(stage: Stage, place: Path) -> Iterator[None]:
    """Keep every relation of Hopgate at *place* while the body runs."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'".encode())
        _move_to(connection, "small")
        yield
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"], autocommit=True) as connection:
        _move_to(connection, "pg_default")
        connection.execute("DROP TABLESPACE small")


def _move_to(connection: psycopg.Connection[tuple[str, str]], space: str) -> None:
    # One by one: locking several at once could deadlock with Hopgate, which locks in another order.
    for kind, name in connection.execute(_RELATIONS).fetchall():
        connection.execute(f"ALTER {kind} {name} SET TABLESPACE {space}".encode())


_RELATIONS = (
    "SELECT CASE relkind WHEN 'r' THEN 'TABLE' ELSE 'INDEX' END, oid::regclass::text FROM pg_class"
    " WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace ORDER BY relkind DESC"
)


@contextmanager
def connections_exhausted(stage: Stage) -> Iterator[None]:
    """
    Other clients hold every connection, those of Hopgate included.

    The network refuses Hopgate until the other clients have taken its connections. Terminating its
    sessions instead is a race, which Hopgate wins.
    """
    url = stage.servers.postgres.url()
    with ExitStack() as others, psycopg.connect(url, autocommit=True) as admin:
        # Slowly: a hundred new sessions at once would add load.
        _take_every_connection(url, others, pause_s=0.01)
        with refused("postgres")(stage):
            eventually(lambda: admin.execute(_OURS).fetchone() is None, 5, "the sessions of Hopgate end")
            _take_every_connection(url, others)
        yield


def _take_every_connection(url: str, others: ExitStack, *, pause_s: float = 0.0) -> None:
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            others.enter_context(psycopg.connect(url, connect_timeout=2))
            time.sleep(pause_s)


@contextmanager
def sessions_terminated(stage: Stage) -> Iterator[None]:
    """Terminate every session of Hopgate, as an administrator does."""
    with psycopg.connect(stage.servers.postgres.url(), autocommit=True) as connection:
        connection.execute(_TERMINATE)
    yield


@contextmanager
def table_locked(stage: Stage) -> Iterator[None]:
    """Hold an exclusive lock on the table of links, which blocks reads and writes."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        connection.execute("SET lock_timeout = '2s'")
        connection.execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


_OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hopgate'"
_TERMINATE = f"SELECT pg_terminate_backend(pid) FROM ({_OURS}) AS ours"


def _alter_system(stage: Stage, setting: str) -> None:
    with psycopg.connect(stage.servers.postgres.url(), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")
