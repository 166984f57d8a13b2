"""What migrations make of the rows of releases before."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from app import migrations
from app.domain.errors import SettingsError, Unavailable
from app.migrations import OUTSIDE, WrongRole, latest_version, migrate
from app.migrations.rollback import roll_back
from tests.contract.store_database import ODD_TAGS
from tests.integration.migrated import A_LINK, KINDS, empty, execute, insert_link
from tests.servers.postgres import PrivatePostgres


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty(request, tmp_path)


# --- what listings are found by -----------------------------------------------------------


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


# --- what indexes links with less work ----------------------------------------------------

ODD_TEXTS = (
    *("plain", "".join(map(chr, range(32, 127))), "a\nB c/D.e:f-g?h=i_j&k%l+m", "tab\there"),
    *("STRAẞE Σίσυφος İstanbul", "ｆｕｌｌ Ⅷ e\u0301", "漢字 🦆!", "~12~x"),
    *(
        "https://a.example",
        "https://A.example:8080/x",
        "https://a.example?q#f",
        "https://[::1]:80/",
        "https:///x",
    ),
    *("http://a.example/x", "mailto:a/b/c", "app://a/b/c", f"https://{'a' * 300}/", "https://a#b/c"),
)


@pytest.mark.services
def test_cheaper_functions_index_links_as_before(postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO links (slug, long_url, title, tags, aliases, redirect_code, forward_query, enabled,"
            " version, created_at, updated_at, removed_at)"
            " SELECT CASE WHEN n = 3 THEN '~7~' ELSE '' END || 's' || n, text, text, ARRAY[text, NULL],"
            " CASE WHEN n < 4 THEN ARRAY['~3~alias', 'Two'] ELSE '{}' END, 302, false, true, 1, now(), now(),"
            " CASE WHEN n = 5 THEN now() END FROM unnest(%s::text[]) WITH ORDINALITY AS odd(text, n)",
            [list(ODD_TEXTS)],
        )

        def results() -> list[tuple[object, ...]]:
            return connection.execute(
                "SELECT hopgate_host(text), hopgate_fold(text), hopgate_letters(hopgate_fold(text))"
                " FROM unnest(%s::text[]) AS odd(text)",
                [list(ODD_TEXTS)],
            ).fetchall()

        indexed = connection.execute("SELECT * FROM link_index ORDER BY id").fetchall()
        now = results()
        roll_back(url, 20)

        assert now == results()
        assert indexed == connection.execute("SELECT * FROM links_searched ORDER BY id").fetchall()
    assert len(indexed) == len(ODD_TEXTS) - 1
