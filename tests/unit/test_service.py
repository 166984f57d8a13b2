"""The services over the adapters that ship: SQLite, memory, in-process."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.domain.errors import Unavailable
from app.domain.events import LinkChanged, WorkQueue
from app.domain.link import Resolution
from app.service.cache_sync import CacheSync
from app.service.links import Created, Links, leave_to_relay
from tests.conftest import NOW
from tests.contract.cache_entries import cached
from tests.unit.services import FIELDS, SLUG, SilentBus, resolver


class AwayCache:
    async def get_many(self, slugs):
        raise Unavailable("cache", "away")

    async def put(self, resolutions):
        raise Unavailable("cache", "away")


# --- redirects -------------------------------------------------------------------------


async def test_concurrent_misses_are_one_look_up(store, links, cache, bus, monotonic):
    """Of 5,000 callers nine in ten are cancelled, the first among them; the others are answered."""
    await links.create(FIELDS, custom_slug=SLUG)
    _, redirects = resolver(store, cache, bus, monotonic)
    store.open.clear()
    asked = [asyncio.create_task(redirects.resolve(SLUG)) for _ in range(5000)]
    await asyncio.sleep(0)
    for task in asked[:4500]:
        task.cancel()
    await asyncio.sleep(0)

    store.open.set()

    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert store.calls["resolve"] == 1
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[:4500])
    assert {answer.long_url for answer in answers[4500:] if isinstance(answer, Resolution)} == {
        FIELDS.long_url
    }
    assert all(isinstance(answer, Resolution) for answer in answers[4500:])


async def test_unavailable_cache_is_skipped(store, links, bus, monotonic):
    await links.create(FIELDS, custom_slug=SLUG)
    _, redirects = resolver(store, AwayCache(), bus, monotonic)

    assert (await redirects.resolve(SLUG)).long_url == FIELDS.long_url


async def test_cached_link_is_served_without_the_store(store, cache, bus, monotonic):
    await cache.put([Resolution(SLUG, 1, FIELDS.long_url)])
    store.away = True
    _, redirects = resolver(store, cache, bus, monotonic)

    assert (await redirects.resolve(SLUG)).long_url == FIELDS.long_url


class FixedReplica:
    """Returns the same copy for every slug."""

    def __init__(self, copy):
        self.copy = copy

    async def resolve(self, slugs):
        return {self.copy.slug: self.copy} if self.copy is not None else {}


async def test_replica_comes_first_and_is_never_cached(store, links, cache, monotonic):
    """Without the broker, the shared cache is filled from the store only."""
    await links.create(FIELDS, custom_slug=SLUG)
    replica = FixedReplica(Resolution(SLUG, 1, "https://example.com/copy"))
    l1, redirects = resolver(store, cache, SilentBus(), monotonic, replica=replica)
    filling = asyncio.create_task(redirects.run())

    assert (await redirects.resolve(SLUG)).long_url == "https://example.com/copy"
    assert store.calls["resolve"] == 0
    replica.copy = None
    l1.on_gap()
    other = (await links.create(FIELDS)).link.slug
    assert (await redirects.resolve(other)).long_url == FIELDS.long_url
    async with asyncio.timeout(5):
        while await cached(cache, other) is None:
            await asyncio.sleep(0.01)

    assert await cached(cache, SLUG) is None
    filling.cancel()


async def test_replica_older_than_the_minimum_version_is_skipped(store, links, cache, bus, monotonic):
    await links.create(FIELDS, custom_slug=SLUG)
    replica = FixedReplica(Resolution(SLUG, 0, "https://example.com/old"))
    l1, redirects = resolver(store, cache, bus, monotonic, replica=replica)
    l1.on_changes([LinkChanged(SLUG, 1)])

    assert (await redirects.resolve(SLUG)).long_url == FIELDS.long_url
    assert store.calls["resolve"] == 1


async def test_not_found_needs_the_store(store, cache, bus, monotonic):
    """An unknown slug is no 404 while the store does not answer."""
    store.away = True
    _, redirects = resolver(store, cache, bus, monotonic)

    with pytest.raises(Unavailable):
        await redirects.resolve(SLUG)


async def test_cache_older_than_the_minimum_version_is_skipped(store, links, cache, bus, monotonic):
    created = await links.create(FIELDS, custom_slug=SLUG)
    await cache.put([Resolution.of(created.link)])
    l1, redirects = resolver(store, cache, bus, monotonic)
    await links.change(SLUG, {"long_url": "https://example.com/new"})

    l1.on_changes([LinkChanged(SLUG, 2)])

    assert (await redirects.resolve(SLUG)).long_url == "https://example.com/new"


async def test_read_overtaken_by_a_change_is_repeated(store, links, cache, bus, monotonic):
    """A look-up after the change was acknowledged must not return the state before it."""
    l1, redirects = resolver(store, cache, bus, monotonic)
    store.answering.clear()
    before = asyncio.create_task(redirects.resolve(SLUG))
    while not store.calls["resolve"]:
        await asyncio.sleep(0)
    await links.create(FIELDS, custom_slug=SLUG)
    l1.on_changes([LinkChanged(SLUG, 1)])
    after = asyncio.create_task(redirects.resolve(SLUG))
    await asyncio.sleep(0)

    store.answering.set()

    assert {answer.long_url for answer in await asyncio.gather(before, after)} == {FIELDS.long_url}


async def test_worker_writes_a_miss_to_the_cache(store, links, cache, bus, monotonic):
    await links.create(FIELDS, custom_slug=SLUG)
    _, redirects = resolver(store, cache, bus, monotonic)
    await bus.consume(WorkQueue.CACHE, CacheSync(store, cache, bus).apply)
    filling = asyncio.create_task(redirects.run())

    await redirects.resolve(SLUG)

    while await cached(cache, SLUG) is None:
        await asyncio.sleep(0)
    filling.cancel()
    found = await cached(cache, SLUG)
    assert found is not None
    assert found.long_url == FIELDS.long_url


async def test_gateway_writes_a_miss_itself_without_the_broker(store, links, cache, monotonic):
    await links.create(FIELDS, custom_slug=SLUG)
    _, redirects = resolver(store, cache, SilentBus(), monotonic)
    filling = asyncio.create_task(redirects.run())

    await redirects.resolve(SLUG)

    while await cached(cache, SLUG) is None:
        await asyncio.sleep(0)
    filling.cancel()


# --- links -----------------------------------------------------------------------------


async def test_taken_random_slug_is_drawn_again(embedded_store):
    """The first two draws hit slugs that exist."""
    drawn = iter("aaaaaaa" + "bbbbbbb" + "aaaaaaa" + "bbbbbbb" + "ccccccc")
    links = Links(
        embedded_store, leave_to_relay, clock=lambda: NOW, choice=lambda _: next(drawn), own_hosts=()
    )

    outcomes = [await links.create(FIELDS) for _ in range(3)]
    made = [outcome.link.slug for outcome in outcomes if isinstance(outcome, Created)]

    assert made == ["aaaaaaa", "bbbbbbb", "ccccccc"]


async def test_slug_is_free_as_a_create_finds_it(embedded_store):
    now = [NOW]
    links = Links(
        embedded_store,
        leave_to_relay,
        clock=lambda: now[0],
        choice=lambda text: text[0],
        own_hosts=(),
        cool_down=timedelta(days=1),
    )

    assert await links.is_free(SLUG)
    await links.create(FIELDS, custom_slug=SLUG)
    assert not await links.is_free(SLUG)
    await links.remove(SLUG)
    assert not await links.is_free(SLUG)
    now[0] += timedelta(days=2)

    assert await links.is_free(SLUG)
    assert isinstance(await links.create(FIELDS, custom_slug=SLUG), Created)
