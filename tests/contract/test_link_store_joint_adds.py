"""Concurrent creates share a statement in PostgreSQL, invisibly to their callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from app.adapters.postgres.store import PostgresStore
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.ports import Added
from tests.contract.postgres_sessions import open_connected
from tests.servers.postgres import PrivatePostgres

pytestmark = pytest.mark.services
NOW = datetime(2030, 1, 31, tzinfo=UTC)


def new(slug: str, *, redirect_code: int = 302) -> list[NewLink]:
    fields = LinkFields(long_url=f"https://example.com/{slug}", redirect_code=redirect_code)
    return [NewLink(slug=Slug(slug), fields=fields)]


def one(answer: object) -> Added:
    """Return what became of an addition without a request."""
    assert isinstance(answer, Added)
    return answer


@pytest.fixture
def url(postgres: PrivatePostgres) -> str:
    return postgres.create_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = await open_connected(url)
    yield store
    await store.aclose()


async def test_each_caller_gets_its_own_link(store: PostgresStore, url: str) -> None:
    times = [NOW + timedelta(microseconds=number) for number in range(300)]
    answers = await asyncio.gather(
        *(store.add(new(f"s{number}"), now=time) for number, time in enumerate(times))
    )

    events = set()
    for number, answer in enumerate(answers):
        assert isinstance(answer, Added)
        [link], [event] = answer.links, answer.events
        assert link is not None
        assert (link.slug, link.created_at, link.updated_at) == (f"s{number}", times[number], times[number])
        assert link == await store.get(link.slug)
        assert (event.change.slug, event.change.version) == (link.slug, 1)
        events.add(event.id)
    with psycopg.connect(url) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM outbox")} == events
        # Rows of one transaction have its id.
        [(transactions,)] = connection.execute("SELECT count(DISTINCT xmin::text) FROM links").fetchall()
    assert transactions <= 10


async def test_one_of_concurrent_creates_gets_the_slug(store: PostgresStore) -> None:
    slugs = [f"s{number % 5}" for number in range(200)]
    answers = [one(each) for each in await asyncio.gather(*(store.add(new(slug), now=NOW) for slug in slugs))]

    got = [slug for slug, answer in zip(slugs, answers, strict=True) if answer.links[0] is not None]
    assert sorted(got) == ["s0", "s1", "s2", "s3", "s4"]
    assert all(len(answer.events) == (answer.links[0] is not None) for answer in answers)


async def test_invalid_link_fails_alone(store: PostgresStore) -> None:
    """The rules of the domain refuse such a link earlier."""
    adds = [store.add(new(f"s{number}"), now=NOW) for number in range(20)]
    adds.insert(7, store.add(new("odd", redirect_code=999), now=NOW))
    answers = await asyncio.gather(*adds, return_exceptions=True)

    odd = answers.pop(7)
    assert isinstance(odd, psycopg.errors.CheckViolation)
    stored = [link.slug for answer in answers for link in one(answer).links if link is not None]
    assert stored == [f"s{number}" for number in range(20)]
    assert await store.get(Slug("odd")) is None


async def test_create_cancelled_early_is_not_stored(store: PostgresStore) -> None:
    going = asyncio.create_task(store.add(new("going"), now=NOW))
    staying = asyncio.create_task(store.add(new("staying"), now=NOW))
    await asyncio.sleep(0)
    going.cancel()

    assert one(await staying).events
    with pytest.raises(asyncio.CancelledError):
        await going
    assert await store.get(Slug("going")) is None


async def test_server_outage_fails_every_caller() -> None:
    store = await PostgresStore.open("postgresql://user@127.0.0.1:1/none", wait_timeout_s=0.2)
    async with aclosing(store):
        answers = await asyncio.gather(
            *(store.add(new(f"s{number}"), now=NOW) for number in range(20)), return_exceptions=True
        )

    assert {type(answer) for answer in answers} == {Unavailable}


async def test_closing_finishes_pending_creates(url: str) -> None:
    store = await open_connected(url)
    adds = [asyncio.create_task(store.add(new(f"s{number}"), now=NOW)) for number in range(250)]
    await asyncio.sleep(0)
    await store.aclose()

    assert all([one(await add).events for add in adds])
