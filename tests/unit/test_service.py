"""The services over the adapters that ship: SQLite, memory, in-process."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from app.adapters.bus_inprocess import InProcessBus
from app.adapters.cache_memory import MemoryCache
from app.domain.errors import InvalidInput, Unavailable
from app.domain.events import LinkChanged
from app.domain.link import LinkFields, Resolution, Slug
from app.ports import IdempotentRequest
from app.resilience.admission import Admission
from app.service.admission import Entrance
from app.service.cache_sync import CacheSync
from app.service.hot_links import HotLinks
from app.service.links import Draft, Links, leave_to_relay
from app.service.outbox import OutboxPublisher, OutboxRelay
from app.service.redirects import Redirects
from tests.conftest import NOW
from tests.contract.cache_entries import cached

FIELDS = LinkFields(long_url="https://example.com/")
SLUG = Slug("abcdefg")


@pytest.fixture
async def bus():
    bus = InProcessBus()
    yield bus
    await bus.aclose()


@pytest.fixture
def cache():
    return MemoryCache()


@pytest.fixture
def links(embedded_store, choice):
    return Links(embedded_store, leave_to_relay, clock=lambda: NOW, choice=choice, own_hosts=())


class CountingStore:
    """Lets a real store through, counts the calls, and can hold them back or be away."""

    def __init__(self, store):
        self._store = store
        self.calls = Counter()
        self.looked_up = []
        self.open = asyncio.Event()
        self.open.set()
        self.answering = asyncio.Event()
        self.answering.set()
        self.away = False

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            self.calls[name] += 1
            if name == "resolve":
                self.looked_up.extend(args[0])
            await self.open.wait()
            if self.away:
                raise Unavailable("store", "away")
            answer = await getattr(self._store, name)(*args, **kwargs)
            await self.answering.wait()
            return answer

        return call


class Forwarding:
    """A listener that is told of changes, and of no gap."""

    def __init__(self, listener):
        self.on_changes = listener.on_changes

    def on_gap(self):
        pass


class AwayCache:
    async def get_many(self, slugs):
        raise Unavailable("cache", "away")

    async def put(self, resolutions):
        raise Unavailable("cache", "away")


class SilentBus(InProcessBus):
    """A broker that takes nothing on."""

    async def publish(self, events):
        return [False] * len(events)


class WaitingBus(InProcessBus):
    """A broker that never says whether it has taken anything on; `asked` once it should."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()

    async def publish(self, events):
        self.asked.set()
        await asyncio.Event().wait()


@pytest.fixture
def store(embedded_store):
    return CountingStore(embedded_store)


def resolver(store, cache, bus, monotonic, replica=None):
    hot = HotLinks(lambda resolution, _: resolution, monotonic=monotonic, wall=lambda: 0.0)
    entrance = Entrance(Admission(), monotonic=monotonic)
    return hot, Redirects(hot, cache, store, bus, entrance, replica=replica)


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


# --- outbox ----------------------------------------------------------------------------


async def test_a_change_leaves_the_outbox_when_the_broker_took_it(embedded_store, links, cache, bus):
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(embedded_store, cache, bus))
    publishing = asyncio.create_task(publisher.run())
    links._deliver = publisher.deliver

    await links.create(FIELDS)

    while (await embedded_store.outbox_depth()).rows:
        await asyncio.sleep(0)
    publishing.cancel()


async def test_a_change_stays_in_the_outbox_and_is_cached_directly_while_the_broker_takes_nothing(
    embedded_store, links, cache
):
    bus = SilentBus()
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(embedded_store, cache, bus))
    links._deliver = publisher.deliver

    await links.create(FIELDS, custom_slug=SLUG)
    await publisher.flush()

    assert (await embedded_store.outbox_depth()).rows == 1
    assert (await cached(cache, SLUG)).version == 1
    # From now on the writer's own request writes the cache.
    await links.change(SLUG, {"title": "new"})
    assert (await cached(cache, SLUG)).version == 2


async def test_a_change_is_cached_while_the_publish_of_an_earlier_one_waits_for_the_broker(
    embedded_store, links, cache
):
    """Else the first copy that is renewed meanwhile is an old one, and lives for two seconds more."""
    bus = WaitingBus()
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(embedded_store, cache, bus))
    publishing = asyncio.create_task(publisher.run())
    links._deliver = publisher.deliver
    await links.create(FIELDS)
    async with asyncio.timeout(5):
        await bus.asked.wait()

        await links.create(FIELDS, custom_slug=SLUG)

        while await cached(cache, SLUG) is None:
            await asyncio.sleep(0)
    publishing.cancel()


async def test_a_change_that_the_cache_does_not_take_is_seen_by_the_other_gateways(
    embedded_store, store, links, cache, bus, monotonic
):
    """A cache that refuses writes, or comes back with its old data, says what was true before."""

    class ReadOnlyCache(MemoryCache):
        async def get_many(self, slugs):
            return await cache.get_many(slugs)

        async def put(self, resolutions):
            raise Unavailable("cache", "read-only")

    await links.create(FIELDS, custom_slug=SLUG)
    read_only = ReadOnlyCache()
    await cache.put([Resolution(SLUG, 1, FIELDS.long_url)])
    other, redirects = resolver(store, read_only, bus, monotonic)
    await bus.listen(other)
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(embedded_store, read_only, bus))
    links._deliver = publisher.deliver
    assert (await redirects.resolve(SLUG)).version == 1

    await links.change(SLUG, {"title": "new"})
    await publisher.flush()

    for seconds in (0, 3, 60, 120, 180):  # each visit renews what is remembered of the link
        monotonic.now += seconds
        assert (await redirects.resolve(SLUG)).version == 2


async def test_a_change_is_announced_once_the_store_could_be_asked(
    embedded_store, store, links, cache, bus, monotonic
):
    """Else a link that is served from the caches is served by nobody while the store is away."""
    await links.create(FIELDS, custom_slug=SLUG)
    other, redirects = resolver(store, cache, bus, monotonic)
    await redirects.resolve(SLUG)
    await bus.listen(Forwarding(other))
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(store, cache, bus))
    links._deliver = publisher.deliver

    store.away = True
    await links.change(SLUG, {"title": "new"})
    await publisher.flush()

    assert (await redirects.resolve(SLUG)).version == 1


async def test_an_announcement_that_hangs_keeps_no_change_from_the_cache(embedded_store, links, cache):
    class Mute(InProcessBus):
        async def announce(self, changes):
            await asyncio.Event().wait()

    publisher = OutboxPublisher(embedded_store, Mute(), CacheSync(embedded_store, cache, Mute()))
    publishing = asyncio.create_task(publisher.run())
    links._deliver = publisher.deliver
    async with asyncio.timeout(5):
        await links.create(FIELDS, custom_slug=Slug("earlier"))
        while await cached(cache, Slug("earlier")) is None:
            await asyncio.sleep(0)

        await links.create(FIELDS, custom_slug=SLUG)

        while await cached(cache, SLUG) is None:
            await asyncio.sleep(0)
    publishing.cancel()


async def test_the_relay_moves_what_is_due_and_keeps_what_was_not_taken(embedded_store, links, bus):
    await links.create(FIELDS)
    taken = []

    class ReadyStore(CountingStore):
        def __getattr__(self, name):
            return getattr(embedded_store, name)

        async def take_events(self, *, limit, lease_s):  # the grace is the adapter's to test
            return taken

    from app.ports import OutboxEvent

    taken = [OutboxEvent(1, LinkChanged(SLUG, 1))]

    assert await OutboxRelay(ReadyStore(embedded_store), SilentBus()).sweep() == (1, True)
    assert (await embedded_store.outbox_depth()).rows == 1
    assert await OutboxRelay(ReadyStore(embedded_store), bus).sweep() == (1, False)
    assert (await embedded_store.outbox_depth()).rows == 0


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
