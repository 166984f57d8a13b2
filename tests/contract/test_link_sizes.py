"""`LinkStore` and the schema: the longest slug and the longest target are stored and come back."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import apsw
import psycopg
import pytest

from app import migrations
from app.domain import slug as slugs
from app.domain import target
from app.domain.link import Slug
from app.ports import Changed, Store
from tests.contract.store_links import FIELDS, FULL, NOW, added
from tests.servers.postgres import PrivatePostgres

LONGEST_SLUG = Slug("s" * slugs.MAX_LENGTH)
_START = "https://example.com/"
LONGEST_URL = _START + "a" * (target.MAX_LENGTH - len(_START))


def test_limits_are_what_the_schema_says():
    assert (slugs.MAX_LENGTH, target.MAX_LENGTH) == (128, 8192)
    assert len(LONGEST_URL) == 8192


async def test_longest_slug_and_target_are_stored(store: Store):
    [link] = await added(
        store, LONGEST_SLUG, fields=replace(FULL, enabled=True, valid_from=None, long_url=LONGEST_URL)
    )

    assert await store.get(LONGEST_SLUG) == link
    resolved = await store.resolve([LONGEST_SLUG])
    assert resolved[LONGEST_SLUG].long_url == LONGEST_URL


async def test_shortest_slug_is_stored_and_gets_the_longest_target(store: Store):
    await added(store, "1")

    changed = await store.update(
        Slug("1"), replace(FIELDS, long_url=LONGEST_URL), expected_version=1, now=NOW
    )

    assert isinstance(changed, Changed)
    assert changed.link.fields.long_url == LONGEST_URL


# --- the migration that made the columns wider ---------------------------------------------

_ROWS = """
    INSERT INTO links (slug, long_url, title, tags, redirect_code, forward_query, enabled, version,
                       created_at, updated_at, max_visits, visits_taken)
    VALUES ('one', 'https://example.com/1', 'One', {tags}, 301, {true}, {true}, 7, {now}, {now}, 5, 3),
           ('two', 'https://example.com/2', '', {none}, 302, {false}, {false}, 1, {now}, {now}, NULL, 0)
"""
_READ = "SELECT * FROM links ORDER BY id"


def before_it(technology: str) -> str:
    """Return the SQL of the schema before the columns were wider."""
    folder = resources.files(migrations.__name__).joinpath(technology)
    names = sorted(one.name for one in folder.iterdir() if one.name.startswith(("0001", "0002", "0003")))
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in names if "rollback" not in name)


def test_sqlite_links_survive_the_wider_columns(tmp_path: Path):
    path = tmp_path / "links.db"
    with apsw.Connection(str(path)) as db:
        db.execute(before_it("sqlite")).fetchall()
        db.execute(_ROWS.format(tags="""'["a","b"]'""", none="'[]'", now=1, true=1, false=0)).fetchall()
        db.pragma("user_version", 3)
        before = db.execute(_READ).fetchall()
    db.close()

    assert migrations.migrate(f"sqlite:///{path}") == len(migrations._migrations("sqlite")) - 3

    db = apsw.Connection(str(path))
    assert [row[: len(before[0])] for row in db.execute(_READ).fetchall()] == before
    assert db.pragma("integrity_check") == "ok"
    db.execute(
        _ROWS.format(tags="'[]'", none="'[]'", now=2, true=1, false=0)
        .replace("one", LONGEST_SLUG)
        .replace("two", "2")
    ).fetchall()
    # Listings go on where they were: an id is never given twice.
    assert [row[0] for row in db.execute("SELECT id FROM links ORDER BY id")] == [1, 2, 3, 4]
    db.close()


@pytest.mark.services
def test_postgres_links_survive_the_wider_columns(postgres: PrivatePostgres):
    url = postgres.create_database(migrated=False)
    rows = _ROWS.format(tags="ARRAY['a','b']", none="'{}'", now="now()", true="true", false="false")
    with psycopg.connect(url) as db:
        db.execute(before_it("postgres").encode())
        db.execute("CREATE TABLE schema_migrations (version integer PRIMARY KEY, applied_at timestamptz)")
        db.execute("INSERT INTO schema_migrations VALUES (1, now()), (2, now()), (3, now())")
        db.execute(rows.encode())
        before = db.execute(_READ).fetchall()

    assert migrations.migrate(url) == len(migrations._migrations("postgres")) - 3

    with psycopg.connect(url) as db:
        assert [row[: len(before[0])] for row in db.execute(_READ).fetchall()] == before
        db.execute(rows.replace("one", LONGEST_SLUG).replace("two", "2").encode())


@pytest.mark.parametrize("technology", ["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
@pytest.mark.parametrize(
    ("slug", "long_url"),
    [(LONGEST_SLUG + "s", _START), ("", _START), ("abc", LONGEST_URL + "a"), ("abc", "")],
)
async def test_schema_refuses_what_no_link_may_have(
    request: pytest.FixtureRequest, tmp_path: Path, technology: str, slug: str, long_url: str
):
    """The last resort: the rules of the domain refuse it first."""
    insert = f"""
        INSERT INTO links (slug, long_url, title, tags, redirect_code, forward_query, enabled, version,
                           created_at, updated_at)
        VALUES ('{slug}', '{long_url}', '', """
    if technology == "sqlite":
        migrations.migrate(f"sqlite:///{tmp_path}/links.db")
        db = apsw.Connection(f"{tmp_path}/links.db")
        with pytest.raises(apsw.ConstraintError, match="CHECK"):
            db.execute(f"{insert} '[]', 302, 0, 1, 1, 1, 1)")
        db.close()
        return
    server: PrivatePostgres = request.getfixturevalue("postgres")
    with (
        psycopg.connect(server.create_database()) as connection,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        connection.execute(f"{insert} '{{}}', 302, false, true, 1, now(), now())".encode())
