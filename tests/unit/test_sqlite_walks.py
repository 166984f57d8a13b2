"""A page in the middle of links that an order does not tell apart takes as long as the first page."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import apsw
import pytest

from app.adapters.find_order import Effort
from app.adapters.sqlite.find import Finder
from app.adapters.sqlite.store import SqliteStore
from app.domain.link import LinkFields, Slug
from app.migrations import migrate
from app.ports import ImportedLink, LinkQuery, LinkSort, Position

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
COUNT, LIMIT = 8_000, 50
# Of SQLite's virtual machine, for a page; to pass by 4,000 links takes eight times as many.
MOST_INSTRUCTIONS = 10_000
_STEP = 100


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("walks") / "hopgate.db"
    migrate(f"sqlite:///{path}")
    asyncio.run(fill(path))
    return path


async def fill(path):
    store = await SqliteStore.open(path)
    fields = LinkFields(long_url="https://example.com/")
    links = [ImportedLink(slug=Slug(f"s-{n:05}"), fields=fields, created_at=NOW) for n in range(COUNT)]
    await store.add_imported(links, now=NOW)
    await store.aclose()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("sort", "key"),
    [(LinkSort.CREATED, NOW_US), (LinkSort.UPDATED, NOW_US), (LinkSort.TITLE, ""), (LinkSort.CLICKS, 0)],
)
async def test_page_begins_at_its_position(path, sort, key, descending):
    db = apsw.Connection(str(path))
    instructions = 0

    def count() -> bool:
        nonlocal instructions
        instructions += _STEP
        return False

    db.set_progress_handler(count, _STEP, id="count")
    finder = Finder(db)
    middle = "s-04000" if sort is LinkSort.CLICKS else COUNT // 2

    page = await finder.find(LinkQuery(sort=sort, descending=descending), Position(key, middle), LIMIT, NOW)

    found = [int(link.slug.removeprefix("s-")) for link in page.links]
    first = found[0]
    assert found == list(range(first, first - LIMIT, -1) if descending else range(first, first + LIMIT))
    assert abs(first - COUNT // 2) <= 2
    assert instructions <= MOST_INSTRUCTIONS
    await finder.aclose()


@pytest.mark.parametrize("walked", [1, 2_000])
async def test_walk_that_is_given_up_ends_its_transaction(path, walked):
    db = apsw.Connection(str(path))
    finder = Finder(db, Effort(few=0, many=0, walked=walked, long_walked=walked))
    query = LinkQuery(terms=("example",), sort=LinkSort.TITLE, descending=False)

    page = await finder.find(query, Position("", COUNT // 2), LIMIT, NOW)

    assert [link.slug for link in page.links] == [f"s-{n:05}" for n in range(COUNT // 2, COUNT // 2 + LIMIT)]
    assert not db.in_transaction
    await finder.aclose()
