"""How much of its tables the PostgreSQL store reads for a page of a listing."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from app.adapters.find_order import Effort
from app.adapters.postgres import find
from app.ports import LinkQuery
from tests.servers.postgres import PrivatePostgres

pytestmark = pytest.mark.services
NOW = datetime(2030, 1, 31, tzinfo=UTC)
EFFORT = Effort(few=600, many=4000, walked=800, long_walked=4000)
_FILL = """
    INSERT INTO links (slug, long_url, title, tags, redirect_code, forward_query, enabled, version,
                       created_at, updated_at)
    SELECT 'l' || n, 'https://example.com/' || n,
        concat_ws(' ', CASE WHEN n % 20 = 0 THEN 'common' END, CASE WHEN n % 100 = 0 THEN 'seldom' END),
        '{}', 302, false, true, 1, now(), now() FROM generate_series(1, 4000) AS n
"""
_FETCHED = "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s"


@pytest.fixture
def url(postgres: PrivatePostgres) -> str:
    """A database with 4,000 links; the statistics are those of a time when fewer had the word `common`."""
    url = postgres.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE link_index SET (autovacuum_enabled = off)")
        connection.execute(_FILL)
        connection.execute("ANALYZE")
        connection.execute("UPDATE links SET title = 'common' WHERE title = '' AND id % 4 = 0")
    return url


async def fetched(url: str, term: str, table: str) -> int:
    """Return how many rows of *table* a page of ten links with *term* fetches."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        query = LinkQuery(terms=(term,))
        page = await find.find(connection, query, after=None, limit=10, now=NOW, effort=EFFORT)
        [(rows,)] = await (await connection.execute(_FETCHED, [table])).fetchall()
    assert len(page.links) == 10
    return int(rows)


async def test_links_of_an_underestimated_term_are_not_gathered(url: str) -> None:
    assert await fetched(url, "common", "link_index") < 300


async def test_links_are_read_until_the_page_is_full(url: str) -> None:
    assert await fetched(url, "seldom", "links") < 40


async def test_walk_in_the_order_of_ids_reads_the_links_that_pass(url: str) -> None:
    assert await fetched(url, "common", "links") < 20
