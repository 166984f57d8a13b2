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
from app.migrations import OUTSIDE, WrongRole, latest_version, migrate, sqlite_path
from app.migrations.rollback import roll_back, rollbacks
from app.ports import Store
from tests.contract.store_database import ODD_TAGS
from tests.contract.store_links import NOW, added
from tests.servers.postgres import PrivatePostgres

ROOT = Path(app.__file__).parent.parent
TABLES = {
    *("links", "outbox", "idempotency", "api_keys"),
    *("click_totals", "click_hours", "click_batches"),
    "link_history",
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


# --- what listings are found by -----------------------------------------------------------

A_LINK = """
    INSERT INTO links (slug, long_url, title, tags, redirect_code, forward_query, enabled, version,
        created_at, updated_at)
    VALUES ('before', 'https://a.example:8080/x', 'STRAẞE', {tags}, 302, {no}, {yes}, 1, {t}, {t})
"""


def insert_link(url: str) -> None:
    if url.startswith("sqlite:"):
        execute(url, A_LINK.format(tags="'[\"a\"]'", no=0, yes=1, t=0))
    else:
        execute(url, A_LINK.format(tags="'{a}'", no="false", yes="true", t="now()"))


def test_links_from_before_are_indexed(url: str) -> None:
    """The migration that adds an index to listings indexes the links that are there."""
    is_sqlite = url.startswith("sqlite:")
    migrate(url)
    roll_back(url, 5 if is_sqlite else 6)
    insert_link(url)

    migrate(url)

    assert execute(url, "SELECT host, folded FROM link_index") == [
        ("a.example", "before\nstrasse\nhttps://a.example:8080/x\na")
    ]
    assert execute(url, "SELECT tag FROM link_tags") == [("a",)]
    assert execute(url, "SELECT slug, clicks FROM click_totals") == [("before", 0)]


@pytest.mark.parametrize("tags", ODD_TAGS)
def test_odd_links_of_other_programs_do_not_stop_the_migration(tmp_path: Path, tags: str) -> None:
    url = f"sqlite:///{tmp_path / 'links.db'}"
    migrate(url)
    roll_back(url, 5)
    execute(url, A_LINK.format(tags=tags, no=0, yes=1, t=0))

    assert migrate(url) == latest_version("sqlite") - 5
    assert execute(url, "SELECT host FROM link_index") == [("a.example",)]
    assert execute(url, "SELECT count(*) FROM link_tags WHERE tag IS NULL") == [(0,)]


@pytest.mark.services
@pytest.mark.parametrize("tags", ["ARRAY[NULL, 'a']", "ARRAY[repeat('x', 6000), 'a']"])
def test_odd_tags_in_postgresql_do_not_stop_the_migration(postgres: PrivatePostgres, tags: str) -> None:
    url = postgres.create_database()
    roll_back(url, 6)
    execute(url, A_LINK.format(tags=tags, no="false", yes="true", t="now()"))

    migrate(url)

    assert execute(url, "SELECT tag FROM link_tags") == [("a",)]
    execute(url, f"UPDATE links SET title = 'other', tags = {tags} || ARRAY['b']")
    assert execute(url, "SELECT tag FROM link_tags ORDER BY tag") == [("a",), ("b",)]
    execute(url, "UPDATE links SET tags = ARRAY[NULL, 'b']")
    assert execute(url, "SELECT tag FROM link_tags") == [("b",)]


@pytest.mark.services
def test_link_that_no_index_takes_is_named_as_the_cause(postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    roll_back(url, 6)
    execute(url, A_LINK.format(tags="'{a}'", no="false", yes="true", t="now()"))
    execute(
        url, "UPDATE links SET title = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 400) n)"
    )

    with pytest.raises(SettingsError, match="does not fit into an index"):
        migrate(url)


@pytest.mark.services
def test_interrupted_build_of_an_index_is_repeated(postgres: PrivatePostgres) -> None:
    """An index whose build was interrupted is there, and answers nothing."""
    url = postgres.create_database()
    insert_link(url)
    roll_back(url, 7)
    execute(url, "DELETE FROM schema_migrations WHERE version = 7")
    execute(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'links_title'::regclass")

    assert migrate(url) == latest_version("postgres") - 6
    assert execute(url, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    assert execute(url, "SELECT count(*) FROM link_index") == [(1,)]


@pytest.mark.services
def test_every_migration_that_was_interrupted_is_repeated(postgres: PrivatePostgres) -> None:
    """What builds indexes outside of a transaction counts at its end, and is begun again until then."""
    url = postgres.create_database()
    directory = Path(migrations.__file__).parent / "postgres"
    texts = {
        int(path.name[:4]): path.read_text()
        for path in directory.glob("*.sql")
        if "rollback" not in path.name
    }

    for version in sorted((number for number, text in texts.items() if OUTSIDE in text), reverse=True):
        roll_back(url, version - 1)
        execute(url, texts[version].partition(OUTSIDE)[0])

        assert migrate(url) == latest_version("postgres") - version + 1


@pytest.mark.services
def test_role_that_may_not_create_the_extension_is_told(postgres: PrivatePostgres) -> None:
    url = postgres.create_database(migrated=False)
    execute(url, "DO $$ BEGIN CREATE ROLE maker LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    execute(url, "GRANT CREATE ON SCHEMA public TO maker")
    execute(url, "GRANT EXECUTE ON FUNCTION pg_control_system() TO maker")
    restricted = url.replace("postgres@", "maker@")

    with pytest.raises(WrongRole, match='permission denied to create extension "pg_trgm"') as caught:
        migrate(restricted)

    assert "\n" not in str(caught.value)
    execute(url, "CREATE EXTENSION pg_trgm")
    assert migrate(restricted) > 0
    assert migrate(restricted) == 0


@pytest.mark.services
def test_role_with_rights_on_single_tables_still_writes_links(postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    execute(url, "DO $$ BEGIN CREATE ROLE writer LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    execute(url, "GRANT SELECT, INSERT, UPDATE ON links, click_totals TO writer")
    writer = url.replace("postgres@", "writer@")

    insert_link(writer)
    execute(writer, "UPDATE links SET title = 'later', removed_at = NULL")

    assert execute(url, "SELECT folded FROM link_index") == [("before\nlater\nhttps://a.example:8080/x\na",)]
    assert execute(url, "SELECT title FROM link_history") == [("STRAẞE",)]


@pytest.mark.services
def test_extension_may_be_in_a_schema_of_its_own(postgres: PrivatePostgres) -> None:
    url = postgres.create_database(migrated=False)
    execute(url, "CREATE SCHEMA elsewhere")
    execute(url, "CREATE EXTENSION pg_trgm SCHEMA elsewhere")

    assert migrate(url) == latest_version("postgres")


# --- the history of links -----------------------------------------------------------------

# As releases from before the history change a link.
AN_OLD_EDIT = (
    "UPDATE links SET title = 'later', version = version + 1, updated_at = {t} WHERE slug = 'before'"
)


def test_links_from_before_have_a_history_from_now_on(url: str) -> None:
    """Gateways of the release before go on with the new schema, and name no actor."""
    is_sqlite = url.startswith("sqlite:")
    number, name, time = (10, "sqlite", "7") if is_sqlite else (11, "postgres", "'2030-01-31 12:00+00'")
    migrate(url)
    roll_back(url, number - 1)
    insert_link(url)

    assert migrate(url) == latest_version(name) - number + 1
    execute(url, AN_OLD_EDIT.format(t=time))
    execute(url, "UPDATE links SET version = version + 1, visits_taken = visits_taken + 1")

    columns = "slug, version, replaced, changed_by, is_undo, was_removed, title"
    [row] = execute(url, f"SELECT {columns} FROM link_history")
    assert row == ("before", 2, 1, None, False, False, "STRAẞE")
    assert execute(url, f"SELECT count(*) FROM link_history WHERE changed_at = {time}") == [(1,)]
    assert execute(url, "SELECT created_by, changed_by FROM links") == [(None, None)]


@pytest.mark.parametrize("tags", ODD_TAGS)
def test_odd_links_of_other_programs_are_changed_as_before(tmp_path: Path, tags: str) -> None:
    url = f"sqlite:///{tmp_path / 'links.db'}"
    migrate(url)
    roll_back(url, 9)
    execute(url, A_LINK.format(tags=tags, no=0, yes=1, t=0))

    assert migrate(url) == latest_version("sqlite") - 9
    execute(url, "UPDATE links SET tags = '[]'")

    assert execute(url, "SELECT count(*) FROM link_history") == [(1,)]


def test_links_from_before_get_no_page_of_their_own(url: str) -> None:
    """Gateways of the release before go on with the new columns; their changes are in the history."""
    is_sqlite = url.startswith("sqlite:")
    number, name, time = (12, "sqlite", "7") if is_sqlite else (13, "postgres", "'2030-01-31 12:00+00'")
    migrate(url)
    roll_back(url, number - 1)
    insert_link(url)
    execute(url, AN_OLD_EDIT.format(t=time))

    assert migrate(url) == latest_version(name) - number + 1
    execute(url, AN_OLD_EDIT.format(t=time).replace("later", "later still"))
    for column in ("expired_url", "robots"):
        execute(url, f"UPDATE links SET {column} = 'x', version = version + 1")

    columns = "version, title, expired_url, robots"
    assert execute(url, f"SELECT {columns} FROM link_history ORDER BY id") == [
        (2, "STRAẞE", None, None),
        (3, "later", None, None),
        (4, "later still", None, None),
        (5, "later still", "x", None),
    ]
    roll_back(url, number - 1)
    execute(url, AN_OLD_EDIT.format(t=time).replace("later", "last"))
    assert execute(url, "SELECT count(*) FROM link_history") == [(5,)]


@pytest.mark.services
def test_history_takes_no_long_lock(postgres: PrivatePostgres) -> None:
    """A reader that stays in a transaction holds the migration up, which gives up instead of waiting."""
    url = postgres.create_database()
    roll_back(url, 10)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM links")

        with pytest.raises(Unavailable):
            migrate(url)
    assert migrate(url) == latest_version("postgres") - 10


# --- owners and restrictions --------------------------------------------------------------


def test_links_and_keys_from_before_stay_what_they_are(url: str) -> None:
    """A link is owned by the key that made it; a key has no restrictions."""
    is_sqlite = url.startswith("sqlite:")
    number, name, time = (13, "sqlite", "7") if is_sqlite else (14, "postgres", "'2030-01-31 12:00+00'")
    secret, scopes = ("zeroblob(32)", "'[]'") if is_sqlite else ("decode(repeat('00', 32), 'hex')", "'{}'")
    migrate(url)
    roll_back(url, number - 1)
    insert_link(url)
    execute(url, "UPDATE links SET created_by = 'key-1'")
    columns = "key_id, name, secret_hash, scopes, created_at"
    execute(url, f"INSERT INTO api_keys ({columns}) VALUES ('k', 'old', {secret}, {scopes}, {time})")

    assert migrate(url) == latest_version(name) - number + 1

    owner = "nullif(coalesce(owner, nullif(created_by, 'cli')), '')"
    assert execute(url, f"SELECT slug FROM links WHERE {owner} = 'key-1'") == [("before",)]
    restrictions = "own_links, domains, allowed_addresses, rate_limit"
    assert execute(url, f"SELECT {restrictions} FROM api_keys") == [(False, None, None, None)]
