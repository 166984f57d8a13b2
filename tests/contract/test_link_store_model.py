"""Every `Store` agrees with the model on any sequence of changes."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.link import Link, LinkFields, NewLink, Slug
from app.ports import IdempotentRequest, Store
from tests.budgets import examples
from tests.contract.store_database import Database, PostgresDatabase, SqliteDatabase
from tests.contract.store_links import changes
from tests.contract.store_model import Model, without_ids
from tests.servers.postgres import PrivatePostgres

_slugs = st.sampled_from([Slug(slug) for slug in ("aaa", "aab", "AAA", "z_-", "mmm")])
_times = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_fields = st.builds(
    LinkFields,
    long_url=st.sampled_from(["https://a.example/", "http://b.example/x?y=z"]),
    title=_text,
    tags=st.lists(_text, max_size=3).map(tuple),
    redirect_code=st.sampled_from([301, 302, 307, 308]),
    valid_from=st.none() | _times,
    expires_at=st.none() | _times,
    forward_query=st.booleans(),
    enabled=st.booleans(),
    max_visits=st.none() | st.integers(1, 2**53 - 1),
    override_query=st.booleans(),
    analytics=st.booleans(),
)
_requests = st.builds(
    IdempotentRequest, st.sampled_from(["s", "t"]), st.sampled_from(["k", "l"]), st.sampled_from([b"1", b"2"])
)
_versions = st.integers(1, 4)
_steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.lists(st.builds(NewLink, slug=_slugs, fields=_fields), max_size=4),
            _times,
            st.none() | _requests,
        ),
        st.tuples(st.just("update"), _slugs, _fields, _versions, _times),
        st.tuples(st.just("remove"), _slugs, st.none() | _versions, _times),
        st.tuples(st.just("touch"), st.lists(_slugs, max_size=3), _times),
    ),
    max_size=12,
)


async def compare(store: Store, database: Database, steps: Sequence[Any]) -> None:
    model = Model()
    for verb, *rest in steps:
        if verb == "add":
            items, now, request = rest
            expected = model.add(items, now, request)
            answer: Any = await store.add(items, now=now, request=request)
        elif verb == "update":
            slug, fields, version, now = rest
            expected = model.update(slug, fields, version, now)
            answer = await store.update(slug, fields, expected_version=version, now=now)
        elif verb == "remove":
            slug, version, now = rest
            expected = model.remove(slug, version, now)
            answer = await store.remove(slug, expected_version=version, now=now)
        else:
            slugs, now = rest
            expected = model.touch(slugs)
            answer = await store.touch(slugs)
        assert without_ids(answer) == expected, verb

    listing: list[Link] = []
    after = None
    while True:
        page = await store.page(after=after, limit=2)
        listing += page.links
        if (after := page.next_after) is None:
            break
    assert listing == model.listing()
    assert await store.get_many([*model.links, Slug("nope")]) == model.links
    assert await changes(store, database) == Counter((c.slug, c.version) for c in model.changes)


async def compare_anew(database: Database, steps: Sequence[Any]) -> None:
    for table in ("links", "outbox", "idempotency"):
        database.execute(f"DELETE FROM {table}")
    async with aclosing(await database.open()) as store:
        await compare(store, database, steps)


@pytest.fixture(scope="module")
def database_in_memory(sqlite_template: Path) -> Iterator[SqliteDatabase]:
    # The model has no power cuts, so no write needs to wait for a disk.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield SqliteDatabase(sqlite_template, Path(directory))


@given(steps=_steps)
@settings(max_examples=examples(150))
def test_sqlite_agrees_with_the_model(steps: Sequence[Any], database_in_memory: SqliteDatabase) -> None:
    asyncio.run(compare_anew(database_in_memory, steps))


@pytest.fixture(scope="module")
def one_database(postgres: PrivatePostgres) -> PostgresDatabase:
    return PostgresDatabase(postgres)


@pytest.mark.services
@given(steps=_steps)
@settings(max_examples=examples(25))
def test_postgres_agrees_with_the_model(steps: Sequence[Any], one_database: PostgresDatabase) -> None:
    asyncio.run(compare_anew(one_database, steps))
