"""Migrations: applied once, whoever and how many try; undone by hand; shipped with the package."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import apsw
import psycopg
import pytest

import app
from app import migrations
from app.adapters import store_postgres_sql, store_sqlite_sql
from app.domain.errors import Unavailable
from app.migrations import latest_version, migrate, sqlite_path
from app.settings import SettingsError
from tests.servers.postgres import PrivatePostgres

ROOT = Path(app.__file__).parent.parent
TABLES = {
    *("links", "outbox", "idempotency", "api_keys"),
    *("click_totals", "click_hours", "click_batches"),
}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/links.db"
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return server.create_database(migrated=False)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    if url.startswith("sqlite:"):
        db = apsw.Connection(str(sqlite_path(url)))
        try:
            return db.execute(statement).fetchall()
        finally:
            db.close()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> set[object]:
    if url.startswith("sqlite:"):
        return {row[0] for row in execute(url, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return {row[0] for row in execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def python(*arguments: str, path: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd="/",
    )


def test_applied_once(url: str) -> None:
    latest = latest_version("sqlite" if url.startswith("sqlite:") else "postgres")

    assert (migrate(url), migrate(url)) == (latest, 0)
    assert tables(url) >= TABLES


def test_processes_that_migrate_at_once_apply_each_migration_once(url: str) -> None:
    code = f"from app.migrations import migrate; print(migrate({url!r}))"

    answers = [process.communicate() for process in [python("-c", code) for _ in range(3)]]

    latest = latest_version("sqlite" if url.startswith("sqlite:") else "postgres")
    assert sorted(answers) == [("0\n", ""), ("0\n", ""), (f"{latest}\n", "")]


@pytest.mark.parametrize("technology", ["sqlite", "postgres"])
def test_the_stores_know_the_newest_schema(technology: str) -> None:
    known = {"sqlite": store_sqlite_sql, "postgres": store_postgres_sql}[technology].SCHEMA_VERSION

    assert latest_version(technology) == known


def test_every_migration_has_a_rollback_that_undoes_it(url: str) -> None:
    directory = Path(migrations.__file__).parent / ("sqlite" if url.startswith("sqlite:") else "postgres")
    migrate(url)

    for rollback in sorted(directory.glob("*.rollback.sql"), reverse=True):
        execute(url, rollback.read_text())

    assert not tables(url) & TABLES
    names = {path.name.split(".")[0] for path in directory.glob("*.sql")}
    assert names == {path.name.split(".")[0] for path in directory.glob("*.rollback.sql")}


def test_the_sql_is_found_inside_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("__init__.py", "domain/*.py", "migrations/**/*"):
            for path in (ROOT / "app").glob(name):
                packed.write(path, path.relative_to(ROOT))
    code = "from app.migrations import *; import app.migrations as m; print(m.latest_version('postgres'))"

    output, errors = python("-c", code, path=archive).communicate()

    assert (output, errors) == (f"{latest_version('postgres')}\n", "")


def test_an_up_to_date_file_is_not_locked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/links.db"
    migrate(url)
    writer = apsw.Connection(str(sqlite_path(url)))
    writer.execute("BEGIN IMMEDIATE")

    assert migrate(url) == 0
    writer.close()


@pytest.mark.parametrize("bad", ["sqlite://links.db", "sqlite:///", "sqlite:///:memory:"])
def test_a_sqlite_url_names_a_file(bad: str) -> None:
    with pytest.raises(ValueError, match="looks like sqlite:///"):
        migrate(bad)


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "links.db"
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(Unavailable, match="not a database"):
        migrate(f"sqlite:///{path}")


@pytest.mark.parametrize("bad", ["postgresql://u:s3cret@[h/x", "postgresql://u:s3cret@h/x?no=1"])
def test_a_url_that_cannot_be_parsed_is_not_quoted(bad: str) -> None:
    with pytest.raises(SettingsError, match="cannot be parsed") as caught:
        migrate(bad)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_server_that_is_down_is_unavailable_and_keeps_the_password_secret() -> None:
    with pytest.raises(Unavailable, match="refused") as caught:
        migrate("postgresql://user:s3cret@127.0.0.1:1/x")

    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.services
def test_a_server_that_takes_no_writes_is_unavailable(postgres: PrivatePostgres) -> None:
    url = f"{postgres.create_database()}?options=-c%20default_transaction_read_only%3Don"

    with pytest.raises(Unavailable, match="read-only"):
        migrate(url)


@pytest.mark.services
def test_the_lock_of_a_migration_that_died_is_free(postgres: PrivatePostgres) -> None:
    url = postgres.create_database(migrated=False)
    died = psycopg.connect(url)
    died.execute("SELECT pg_advisory_xact_lock(%s)", [migrations._ADVISORY_LOCK])
    execute(url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    assert migrate(url) == latest_version("postgres")
    died.close()
