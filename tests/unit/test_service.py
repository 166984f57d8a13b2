"""The services over the adapters that ship: SQLite, memory, in-process."""

from __future__ import annotations

import asyncio

import pytest

from app.domain.errors import InvalidInput, Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.ports import IdempotentRequest
from app.service.cache_sync import CacheSync
from app.service.links import Draft, Links, leave_to_relay
from tests.conftest import NOW
from tests.contract.cache_entries import cached
from tests.unit.services import FIELDS, SLUG, SilentBus, resolver


class AwayCache:
    async def get_many(self, slugs):
        raise Unavailable("cache", "away")

    async def put(self, resolutions):
        raise Unavailable("cache", "away")


# --- redirects -------------------------------------------------------------------------


async def test_five_thousand_who_miss_the_same_slug_ask_the_store_once(store, links, cache, bus, monotonic):
    """All are answered alike; nine in ten hang up, the first one among them, and that changes nothing."""
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
    assert {answer.long_url for answer in answers[4500:]} == {FIELDS.long_url}


async def test_a_cache_that_is_away_is_passed_over(store, links, bus, monotonic):
    await links.create(FIELDS, custom_slug=SLUG)
    _, redirects = resolver(store, AwayCache(), bus, monotonic)

    assert (await redirects.resolve(SLUG)).long_url == FIELDS.long_url


async def test_a_cached_link_is_served_while_the_store_is_away(store, cache, bus, monotonic):
    await cache.put([Resolution(SLUG, 1, FIELDS.long_url)])
    store.away = True
    _, redirects = resolver(store, cache, bus, monotonic)

    assert (await redirects.resolve(SLUG)).long_url == FIELDS.long_url


class FixedReplica:
    """Has one copy, whatever is asked for."""

    def __init__(self, copy):
        self.copy = copy

    async def resolve(self, slugs):
        return {self.copy.slug: self.copy} if self.copy is not None else {}


async def test_a_replica_is_asked_before_the_store_and_never_cached(store, links, cache, monotonic):
    """While the broker is away, the shared cache is filled with what the store said, and that alone."""
    await links.create(FIELDS, custom_slug=SLUG)
    replica = FixedReplica(Resolution(SLUG, 1, "https://example.com/copy"))
    hot, redirects = resolver(store, cache, SilentBus(), monotonic, replica=replica)
    filling = asyncio.create_task(redirects.run())

    assert (await redirects.resolve(SLUG)).long_url == "https://example.com/copy"
    assert store.calls["resolve"] == 0
    replica.copy = None
    hot.on_gap()
    other = (await links.create(FIELDS)).link.slug
    assert (await redirects.resolve(other)).long_url == FIELDS.long_url
    async with asyncio.timeout(5):
        while await cached(cache, other) is None:
            await asyncio.sleep(0.01)

    assert await cached(cache, SLUG) is None
    filling.cancel()


async def test_a_replica_that_is_older_than_a_change_heard_of_is_passed_over(
    store, links, cache, bus, monotonic
):
    await links.create(FIELDS, custom_slug=SLUG)
    replica = FixedReplica(Resolution(SLUG, 0, "https://example.com/old"))
    hot, redirects = resolver(store, cache, bus, monotonic, replica=replica)
    hot.on_changes([LinkChanged(SLUG, 1)])

    assert (await redirects.resolve(SLUG)).long_url == FIELDS.long_url
    assert store.calls["resolve"] == 1


async def test_not_found_is_said_on_proof_of_the_store_alone(store, cache, bus, monotonic):
    """An unknown slug while the store is away is no 404."""
    store.away = True
    _, redirects = resolver(store, cache, bus, monotonic)

    with pytest.raises(Unavailable):
        await redirects.resolve(SLUG)


async def test_what_the_cache_holds_is_passed_over_once_a_newer_version_was_heard_of(
    store, links, cache, bus, monotonic
):
    created = await links.create(FIELDS, custom_slug=SLUG)
    await cache.put([Resolution.of(created.link)])
    hot, redirects = resolver(store, cache, bus, monotonic)
    await links.change(SLUG, {"long_url": "https://example.com/new"})

    hot.on_changes([LinkChanged(SLUG, 2)])

    assert (await redirects.resolve(SLUG)).long_url == "https://example.com/new"


async def test_a_read_that_a_change_overtook_is_made_again(store, links, cache, bus, monotonic):
    """Who asks after the change was acknowledged is not answered from before it."""
    hot, redirects = resolver(store, cache, bus, monotonic)
    store.answering.clear()
    before = asyncio.create_task(redirects.resolve(SLUG))
    while not store.calls["resolve"]:
        await asyncio.sleep(0)
    await links.create(FIELDS, custom_slug=SLUG)
    hot.on_changes([LinkChanged(SLUG, 1)])
    after = asyncio.create_task(redirects.resolve(SLUG))
    await asyncio.sleep(0)

    store.answering.set()

    assert {answer.long_url for answer in await asyncio.gather(before, after)} == {FIELDS.long_url}


async def test_a_miss_is_written_to_the_cache_by_the_worker(store, links, cache, bus, monotonic):
    await links.create(FIELDS, custom_slug=SLUG)
    _, redirects = resolver(store, cache, bus, monotonic)
    await bus.consume(CacheSync(store, cache, bus).apply)
    filling = asyncio.create_task(redirects.run())

    await redirects.resolve(SLUG)

    while await cached(cache, SLUG) is None:
        await asyncio.sleep(0)
    filling.cancel()
    assert (await cached(cache, SLUG)).long_url == FIELDS.long_url


async def test_a_miss_is_written_by_the_gateway_itself_while_the_broker_takes_nothing(
    store, links, cache, monotonic
):
    await links.create(FIELDS, custom_slug=SLUG)
    _, redirects = resolver(store, cache, SilentBus(), monotonic)
    filling = asyncio.create_task(redirects.run())

    await redirects.resolve(SLUG)

    while await cached(cache, SLUG) is None:
        await asyncio.sleep(0)
    filling.cancel()


# --- links -----------------------------------------------------------------------------


async def test_random_slugs_that_are_taken_are_drawn_again(embedded_store):
    """The first two draws hit slugs that exist."""
    drawn = iter("aaaaaaa" + "bbbbbbb" + "aaaaaaa" + "bbbbbbb" + "ccccccc")
    links = Links(
        embedded_store, leave_to_relay, clock=lambda: NOW, choice=lambda _: next(drawn), own_hosts=()
    )

    made = [(await links.create(FIELDS)).link.slug for _ in range(3)]

    assert made == ["aaaaaaa", "bbbbbbb", "ccccccc"]


async def test_a_batch_leaves_out_taken_slugs_and_is_the_same_again(links):
    await links.create(FIELDS, custom_slug="taken")
    drafts = [
        Draft(FIELDS, Slug("one")),
        Draft(FIELDS, Slug("taken")),
        Draft(FIELDS),
        Draft(FIELDS, Slug("one")),
    ]
    request = IdempotentRequest("import", "1", b"x")

    first = await links.create_many(drafts, request=request)
    second = await links.create_many(drafts, request=request)

    assert [link.slug if link else None for link in first.links][:2] == ["one", None]
    assert first.links[2] is not None
    assert first.links[3] is None
    assert second.links == first.links
    assert (first.replayed, second.replayed) == (False, True)


async def test_a_batch_under_a_used_name_is_refused(links):
    await links.create_many([Draft(FIELDS)], request=IdempotentRequest("import", "1", b"x"))

    with pytest.raises(InvalidInput):
        await links.create_many([Draft(FIELDS)], request=IdempotentRequest("import", "1", b"y"))
