"""Every `Store` lists what the model lists, in its order, each link once, whatever the query."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.find_order import Effort
from app.adapters.postgres import find as postgres_find
from app.adapters.postgres.store import PostgresStore
from app.adapters.sqlite import find as sqlite_find
from app.adapters.sqlite.store import SqliteStore
from app.concurrency.actors import acting_as
from app.domain.events import ClicksCounted
from app.domain.link import Link, LinkFields, NewLink, Slug
from app.domain.reach import Reach
from app.domain.search import folded
from app.ports import LinkCondition, LinkQuery, LinkSort, Store, TimeRange, Totals
from tests.budgets import examples
from tests.contract.find_model import all_pages, listed, retagged, tag_counts
from tests.contract.store_database import Database, PostgresDatabase, SqliteDatabase
from tests.servers.postgres import PrivatePostgres

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
_slugs = st.sampled_from(
    [Slug(slug) for slug in ("aaa", "aab", "AAA", "z_-", "mmm", "zz%", "Ab1", "b-b", "~1~aaa", "~2~z")]
)
_tags = st.sampled_from(["spring", "Spring", "summer", "%_\\", '"', "’n", "😀😀😀", "Straße", "e\u0301té"])
_urls = st.sampled_from(
    ["https://a.example/", "http://b.example:8080/x?y=z", "https://a.example/100%25_off", "http://[::1]/a"]
)
_titles = st.sampled_from(
    [
        "",
        "Zebra",
        "zebra",
        "apple pie",
        "ΣΑΣ",
        "STRAẞE",
        "été",
        "e\u0301te\u0301",
        "50%_\\off",
        "a'b\"c",
        "😀😀😀",
        "ﬁﬁﬁ",
    ]
)
_times = st.sampled_from([NOW + timedelta(hours=n) for n in (-2, -1, 0, 1, 2)])
_fields = st.builds(
    LinkFields,
    long_url=_urls,
    title=_titles,
    tags=st.lists(_tags, max_size=3, unique=True).map(tuple),
    valid_from=st.none() | _times,
    expires_at=st.none() | _times,
    enabled=st.booleans(),
)
_periods = st.builds(TimeRange, st.none() | _times, st.none() | _times)
_terms = st.sampled_from(
    ["zebra", "ebr", "a.example", "100%25_", "%_\\", "σασ", "strasse", "été", "😀😀😀", "fifi", "http", "aab",
     "a'b", 'b"c', "spring", "___", "off\\"]
)  # fmt: skip
_queries = st.builds(
    LinkQuery,
    terms=st.lists(_terms, max_size=2, unique=True).map(lambda terms: tuple(map(folded, terms))),
    tags_any=st.lists(_tags, max_size=2, unique=True).map(tuple),
    tags_all=st.lists(_tags, max_size=2, unique=True).map(tuple),
    tags_none=st.lists(_tags, max_size=2, unique=True).map(tuple),
    host=st.sampled_from([None, None, "a.example", "b.example", "[::1]"]),
    long_url=st.none() | st.none() | _urls,
    owner=st.sampled_from([None, None, "a", "b", ""]),
    domains=st.sampled_from([(), (), (1,), (0, 2)]),
    conditions=st.lists(st.sampled_from(LinkCondition), max_size=2, unique=True).map(tuple),
    created=st.just(TimeRange()) | _periods,
    updated=st.just(TimeRange()) | _periods,
    expires=st.just(TimeRange()) | _periods,
    sort=st.sampled_from(LinkSort),
    descending=st.booleans(),
)
# One filter at a time, so that most of them list something.
_single = st.builds(
    lambda query, name: LinkQuery(
        **{one: getattr(query, one) for one in (name, "sort", "descending")},
    ),
    _queries,
    st.sampled_from([name for name in LinkQuery.__dataclass_fields__ if name not in ("sort", "descending")]),
)
_steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.lists(st.builds(NewLink, slug=_slugs, fields=_fields), max_size=5),
            _times,
            st.sampled_from(["a", "b", "cli"]),
        ),
        st.tuples(st.just("update"), _slugs, _fields, _times),
        st.tuples(st.just("remove"), _slugs, _times),
        st.tuples(st.just("hand over"), _slugs, st.sampled_from(["a", "b", ""])),
        st.tuples(st.just("clicks"), _slugs, st.integers(1, 3)),
        st.tuples(st.just("retag"), _tags, st.none() | _tags, _times),
    ),
    max_size=10,
)


async def played(store: Store, steps: Sequence[Any]) -> list[Link]:
    """Return all links after *steps*, in the order in which they were stored."""
    order: dict[Slug, None] = {}
    for number, (verb, *rest) in enumerate(steps):
        if verb == "add":
            new, now, maker = rest
            with acting_as(maker):
                answer: Any = await store.add(new, now=now)
            order |= {link.slug: None for link in answer.links if link is not None}
        elif verb == "update":
            slug, fields, now = rest
            link = await store.get(slug)
            if link is not None:
                await store.update(slug, fields, expected_version=link.version, now=now)
        elif verb == "remove":
            slug, now = rest
            await store.remove(slug, expected_version=None, now=now)
        elif verb == "hand over":
            slug, owner = rest
            link = await store.get(slug)
            if link is not None:
                await store.update(
                    slug, link.fields, expected_version=link.version, now=link.updated_at, owner=owner
                )
        elif verb == "clicks":
            slug, clicks = rest
            await store.add_clicks(ClicksCounted(f"{number}", NOW, {slug: clicks}), now=NOW)
        else:
            await retag(store, order, *rest)
    links = await store.get_many(list(order))
    return [links[slug] for slug in order]


async def retag(store: Store, order: dict[Slug, None], tag: str, new: str | None, now: datetime) -> None:
    """Compare each step of a change of tags with the model."""
    if tag == new:
        return
    before = await store.get_many(list(order))
    changed: list[Link] = []
    while batch := await store.retag(tag, new, limit=2, now=now):
        assert len(batch) <= 2
        assert all(one.event.change.slug == one.link.slug for one in batch)
        assert all(one.event.change.version == one.link.version for one in batch)
        changed += [one.link for one in batch]

    expected = {slug for slug, link in before.items() if link.removed_at is None and tag in link.fields.tags}
    assert {link.slug for link in changed} == expected
    assert len(changed) == len(expected)
    for link in changed:
        was = before[link.slug]
        assert link.fields == retagged(was, tag, new).fields
        assert (link.version, link.updated_at) == (was.version + 1, now)


# A few links are always gathered; these make the stores take every other way.
WALKING = Effort(few=0, many=10**6, walked=10**6, long_walked=10**6)
GIVING_UP = Effort(few=0, many=1, walked=2, long_walked=3)
# PostgreSQL expects a row at least, which is an estimate to doubt.
DOUBTING = Effort(few=1, many=10**6, walked=8, long_walked=16)


@dataclass
class SqliteWith(SqliteDatabase):
    template: Path
    directory: Path
    effort: Effort

    def __post_init__(self) -> None:
        super().__init__(self.template, self.directory)

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(self.path, find_effort=self.effort)


@dataclass
class PostgresWith(PostgresDatabase):
    server: PrivatePostgres
    effort: Effort

    def __post_init__(self) -> None:
        super().__init__(self.server)

    async def open(self) -> PostgresStore:
        # Each example has a pool of its own, which a busy machine takes a while to open.
        return await PostgresStore.open(self.url, wait_timeout_s=5.0, find_effort=self.effort)


async def compare(database: Database, steps: Sequence[Any], queries: Sequence[LinkQuery], limit: int) -> None:
    for table in ("links", "outbox", "click_totals", "click_batches"):
        database.execute(f"DELETE FROM {table}")
    async with aclosing(await database.open()) as store:
        links = await played(store, steps)
        for query in queries:
            expected = listed(links, query, NOW)

            assert await all_pages(store, query, limit=limit, now=NOW) == expected
            assert await store.count(query, now=NOW, limit_s=5) == len(expected)
        everything = listed(links, LinkQuery(), NOW)
        clicks = sum(one.visits for one in everything)
        assert await store.totals(limit_s=5) == Totals(len(everything), clicks)
        tags = list(await store.tags(after=None, limit=5))
        if len(tags) == 5:
            tags += await store.tags(after=tags[-1].tag, limit=100)
        assert tags == tag_counts(links)
        own = list(await store.tags(after=None, limit=100, reach=Reach(owner="a")))
        assert own == tag_counts(link for link in links if link.owner == "a")


@pytest.fixture(scope="module", params=[sqlite_find.EFFORT, WALKING, GIVING_UP])
def database_in_memory(request: pytest.FixtureRequest, sqlite_template: Path) -> Iterator[SqliteDatabase]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield SqliteWith(sqlite_template, Path(directory), request.param)


_cases = {
    "steps": _steps,
    "queries": st.lists(_single | _queries, min_size=6, max_size=6),
    "limit": st.integers(1, 3),
}


@given(**_cases)
@settings(max_examples=examples(60))
def test_sqlite_lists_what_the_model_lists(
    steps: Sequence[Any], queries: Sequence[LinkQuery], limit: int, database_in_memory: SqliteDatabase
) -> None:
    asyncio.run(compare(database_in_memory, steps, queries, limit))


@pytest.fixture(scope="module", params=[postgres_find.EFFORT, WALKING, GIVING_UP, DOUBTING])
def one_database(request: pytest.FixtureRequest, postgres: PrivatePostgres) -> PostgresDatabase:
    return PostgresWith(postgres, request.param)


@pytest.mark.services
@given(**_cases)
@settings(max_examples=examples(25))
def test_postgres_lists_what_the_model_lists(
    steps: Sequence[Any], queries: Sequence[LinkQuery], limit: int, one_database: PostgresDatabase
) -> None:
    asyncio.run(compare(one_database, steps, queries, limit))
