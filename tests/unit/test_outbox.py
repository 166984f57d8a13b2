"""From the outbox to broker, cache and gateways, over the adapters that ship: SQLite, memory, in-process."""

from __future__ import annotations

import asyncio

from app.adapters.bus_inprocess import InProcessBus
from app.adapters.cache_memory import MemoryCache
from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.ports import OutboxEvent
from app.service.cache_sync import CacheSync
from app.service.outbox import OutboxPublisher, OutboxRelay
from tests.contract.cache_entries import cached
from tests.unit.services import FIELDS, SLUG, CountingStore, SilentBus, resolver


class Forwarding:
    """A listener that is told of changes, and of no gap."""

    def __init__(self, listener):
        self.on_changes = listener.on_changes

    def on_gap(self):
        pass


class WaitingBus(InProcessBus):
    """A broker that never says whether it has taken anything on; `asked` once it should."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()

    async def publish(self, events):
        self.asked.set()
        await asyncio.Event().wait()


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


async def test_a_change_is_seen_everywhere_though_the_store_goes_away_once_it_has_committed(
    embedded_store, store, links, cache, bus, monotonic
):
    """The link is one that everybody has at hand: it is served all the while, and the new one at once."""
    await links.create(FIELDS, custom_slug=SLUG)
    await cache.put([Resolution(SLUG, 1, FIELDS.long_url)])
    own, own_redirects = resolver(store, cache, bus, monotonic)
    other, other_redirects = resolver(store, cache, bus, monotonic)
    await bus.listen(Forwarding(own))
    await bus.listen(Forwarding(other))
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(store, cache, bus), own)
    links._deliver = publisher.deliver
    for redirects in (own_redirects, other_redirects):
        await redirects.resolve(SLUG)

    store.away = True
    await links.change(SLUG, {"title": "new"})

    assert (await own_redirects.resolve(SLUG)).version == 2  # though the cache was not written yet
    await publisher.flush()
    for seconds in (0, 3):
        monotonic.now += seconds
        assert (await own_redirects.resolve(SLUG)).version == 2
        assert (await other_redirects.resolve(SLUG)).version == 2


async def test_a_change_that_neither_cache_nor_store_can_tell_is_not_announced(
    embedded_store, store, links, cache, bus, monotonic
):
    """Else a link that the other gateways have at hand is served by none of them."""

    class AwayCache(MemoryCache):
        async def put(self, resolutions):
            raise Unavailable("cache", "away")

    await links.create(FIELDS, custom_slug=SLUG)
    own, own_redirects = resolver(store, AwayCache(), bus, monotonic)
    other, other_redirects = resolver(store, AwayCache(), bus, monotonic)
    await bus.listen(Forwarding(other))
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(store, AwayCache(), bus), own)
    links._deliver = publisher.deliver
    for redirects in (own_redirects, other_redirects):
        await redirects.resolve(SLUG)

    store.away = True
    await links.change(SLUG, {"title": "new"})
    await publisher.flush()

    assert (await own_redirects.resolve(SLUG)).version == 2
    assert (await other_redirects.resolve(SLUG)).version == 1
    monotonic.now += 3
    assert own_redirects.stale(SLUG).version == 2
    assert other_redirects.stale(SLUG).version == 1


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

    taken = [OutboxEvent(1, LinkChanged(SLUG, 1))]

    assert await OutboxRelay(ReadyStore(embedded_store), SilentBus()).sweep() == (1, True)
    assert (await embedded_store.outbox_depth()).rows == 1
    assert await OutboxRelay(ReadyStore(embedded_store), bus).sweep() == (1, False)
    assert (await embedded_store.outbox_depth()).rows == 0


class LeasingStore:
    """The outbox of a store whose leases never end; `leased` counts rows."""

    def __init__(self, rows):
        self.rows = {number: OutboxEvent(number, LinkChanged(SLUG, number)) for number in range(1, rows + 1)}
        self._free = list(self.rows.values())
        self.leased = 0

    async def take_events(self, *, limit, lease_s):
        taken, self._free = self._free[:limit], self._free[limit:]
        self.leased += len(taken)
        return taken

    async def drop_events(self, ids):
        for one in ids:
            del self.rows[one]


class ChoosyBus(InProcessBus):
    """A broker that takes on what *takes* says, of each batch."""

    def __init__(self):
        super().__init__()
        self.takes = lambda events: [True] * len(events)

    async def publish(self, events):
        return self.takes(events)


async def test_the_relay_leases_one_batch_however_often_the_broker_takes_nothing():
    """Each batch that was leased for nothing had to wait for its lease when the broker was back."""
    store, bus = LeasingStore(500), ChoosyBus()
    relay = OutboxRelay(store, bus)
    bus.takes = lambda events: [False] * len(events)
    for _ in range(5):
        assert await relay.sweep() == (200, True)
    assert store.leased == 200

    bus.takes = lambda events: [True] * len(events)

    assert [await relay.sweep() for _ in range(4)] == [(200, False), (200, False), (100, False), (0, False)]
    assert not store.rows


async def test_the_relay_goes_on_with_others_beside_what_the_broker_does_not_take():
    store, bus = LeasingStore(500), ChoosyBus()
    relay = OutboxRelay(store, bus)
    bus.takes = lambda events: [event.version != 7 for event in events]

    while (moved := await relay.sweep()) != (1, True):
        assert moved[1]

    assert list(store.rows) == [7]


async def test_the_relay_publishes_once_what_it_keeps_when_its_lease_is_over():
    store, bus = LeasingStore(3), ChoosyBus()
    relay = OutboxRelay(store, bus)
    bus.takes = lambda events: [False] * len(events)
    await relay.sweep()
    store._free = list(store.rows.values())
    offered = []
    bus.takes = lambda events: [offered.append(event.version) is None for event in events]

    await relay.sweep()

    assert offered == [1, 2, 3]
    assert not store.rows
