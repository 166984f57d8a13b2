"""Migrations: applied once by any number of processes; rolled back by hand; shipped with the package."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import apsw
import psycopg
import pytest

import app
from app import migrations
from app.adapters.postgres.store import PostgresStore
from app.adapters.sqlite.store import SqliteStore
from app.domain.errors import SettingsError, Unavailable
from app.domain.link import LinkFields, Slug
from app.migrations import WrongRole, latest_version, migrate, sqlite_path
from app.migrations.rollback import roll_back, rollbacks
from app.ports import Store
from tests.contract.store_links import NOW, added
from tests.integration.migrated import KINDS, empty, execute, insert_link
from tests.servers.postgres import PrivatePostgres

ROOT = Path(app.__file__).parent.parent
TABLES = {
    *("links", "outbox", "idempotency", "api_keys"),
    *("click_totals", "click_hours", "click_batches"),
    "link_history",
}


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty(request, tmp_path)


def tables(url: str) -> set[object]:
    if url.startswith("sqlite:"):
        return {row[0] for row in execute(url, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return {row[0] for row in execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store: Store
    if url.startswith("sqlite:"):
        store = await SqliteStore.open(sqlite_path(url))
    else:
        store = await PostgresStore.open(url)
    try:
        yield store
    finally:
        await store.aclose()


def python(*arguments: str, path: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd="/",
    )


def test_migrations_are_applied_once(url: str) -> None:
    latest = latest_version("sqlite" if url.startswith("sqlite:") else "postgres")

    assert (migrate(url), migrate(url)) == (latest, 0)
    assert tables(url) >= TABLES


def test_concurrent_migrations_are_applied_once(url: str) -> None:
    code = f"from app.migrations import migrate; print(migrate({url!r}))"

    answers = [process.communicate() for process in [python("-c", code) for _ in range(3)]]

    latest = latest_version("sqlite" if url.startswith("sqlite:") else "postgres")
    assert sorted(answers) == [("0\n", ""), ("0\n", ""), (f"{latest}\n", "")]


def test_every_migration_has_a_rollback(url: str) -> None:
    directory = Path(migrations.__file__).parent / ("sqlite" if url.startswith("sqlite:") else "postgres")
    migrate(url)

    for rollback in sorted(directory.glob("*.rollback.sql"), reverse=True):
        execute(url, rollback.read_text())

    assert not tables(url) & TABLES
    names = {path.name.split(".")[0] for path in directory.glob("*.sql")}
    assert names == {path.name.split(".")[0] for path in directory.glob("*.rollback.sql")}


def test_rollbacks_say_what_they_destroy(url: str) -> None:
    """An operator agrees to these lines."""
    migrate(url)

    steps = rollbacks(url, 1)

    assert [step.version for step in steps] == list(
        range(latest_version("sqlite" if url.startswith("sqlite:") else "postgres"), 1, -1)
    )
    quiet = {step.sql.partition("\n")[0] for step in steps if not step.loses}
    assert not [line for line in quiet if line.startswith("DROP TABLE") and "store_epoch" not in line]


async def test_links_outlive_the_way_back_and_forth(url: str) -> None:
    """To each third schema and forward again: the gateway of then, and that of now, find every link."""
    latest = migrate(url)
    async with opened(url) as store:
        await added(store, "kept", fields=LinkFields(long_url="https://example.com/kept", title="A title"))
        await added(store, "gone")
        await store.remove(Slug("gone"), expected_version=None, now=NOW)
        before = await store.get(Slug("kept"))

    for schema in range(latest - 1, 0, -3):
        assert roll_back(url, schema) == latest - schema
        targets = execute(url, "SELECT slug, long_url, removed_at IS NULL FROM links ORDER BY slug")
        assert [(slug, bool(lives)) for slug, _, lives in targets] == [("gone", False), ("kept", True)]
        assert targets[1][1] == "https://example.com/kept"
        assert migrate(url) == latest - schema

    async with opened(url) as store:
        assert await store.get(Slug("kept")) == before
        [link] = await added(store, "new")
        assert link.slug == "new"


@pytest.mark.parametrize("to", [0, -1, 99])
def test_schemas_that_there_are_not(url: str, to: int) -> None:
    latest = migrate(url)

    with pytest.raises(SettingsError, match=f"1 to {latest}, not {to}"):
        roll_back(url, to)
    assert migrate(url) == 0


def test_link_that_does_not_fit_into_the_schema_before_stops_the_way_back(postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    insert_link(url)
    execute(url, f"UPDATE links SET slug = '{'s' * 65}'")

    with pytest.raises(SettingsError, match=r"schema 4 cannot be undone.*remove or shorten"):
        roll_back(url, 3)

    assert [step.version for step in rollbacks(url, 3)] == [4]
    assert migrate(url) == latest_version("postgres") - 4


def test_sql_is_found_inside_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("__init__.py", "domain/*.py", "migrations/**/*"):
            for path in (ROOT / "app").glob(name):
                packed.write(path, path.relative_to(ROOT))
    code = "from app.migrations import *; import app.migrations as m; print(m.latest_version('postgres'))"

    output, errors = python("-c", code, path=archive).communicate()

    assert (output, errors) == (f"{latest_version('postgres')}\n", "")


def test_migrated_file_is_not_locked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/links.db"
    migrate(url)
    writer = apsw.Connection(str(sqlite_path(url)))
    writer.execute("BEGIN IMMEDIATE")

    assert migrate(url) == 0
    writer.close()


@pytest.mark.parametrize("bad", ["sqlite://links.db", "sqlite:///", "sqlite:///:memory:"])
def test_sqlite_url_must_name_a_file(bad: str) -> None:
    with pytest.raises(ValueError, match="looks like sqlite:///"):
        migrate(bad)


def test_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "links.db"
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(Unavailable, match="not a database"):
        migrate(f"sqlite:///{path}")


@pytest.mark.parametrize("bad", ["postgresql://u:s3cret@[h/x", "postgresql://u:s3cret@h/x?no=1"])
def test_invalid_url_is_not_quoted(bad: str) -> None:
    with pytest.raises(SettingsError, match="cannot be parsed") as caught:
        migrate(bad)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_server_that_is_down_without_secrets() -> None:
    with pytest.raises(Unavailable, match="refused") as caught:
        migrate("postgresql://user:s3cret@127.0.0.1:1/x")

    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.services
def test_read_only_server_is_unavailable(postgres: PrivatePostgres) -> None:
    url = f"{postgres.create_database()}?options=-c%20default_transaction_read_only%3Don"

    with pytest.raises(Unavailable, match="read-only"):
        migrate(url)


@pytest.mark.services
@pytest.mark.parametrize(
    ("user", "says"),
    [
        (
            "reader",
            "the role reader may not change the schema (permission denied for schema public): run hopgate",
        ),
        ("missing", "postgresql refuses the user or database of HOPGATE_DATABASE_URL: "),
    ],
)
def test_wrong_role_is_not_unavailable(postgres: PrivatePostgres, user: str, says: str) -> None:
    url = postgres.create_database(migrated=False)
    execute(url, "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]

    with pytest.raises(WrongRole) as caught:
        migrate(parts._replace(netloc=f"{user}:s3cret@{address}").geturl())

    assert str(caught.value).startswith(says)
    assert "s3cret" not in str(caught.value)


@pytest.mark.services
def test_lock_of_a_dead_migration_is_released(postgres: PrivatePostgres) -> None:
    url = postgres.create_database(migrated=False)
    died = psycopg.connect(url)
    died.execute("SELECT pg_advisory_xact_lock(%s)", [migrations._ADVISORY_LOCK])
    execute(url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    assert migrate(url) == latest_version("postgres")
    died.close()
