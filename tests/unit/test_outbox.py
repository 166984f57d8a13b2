"""Outbox publisher and relay, over the adapters that ship: SQLite, memory, in-process."""

from __future__ import annotations

import asyncio

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.ports import OutboxDepth, OutboxEvent
from app.service.cache_sync import CacheSync
from app.service.outbox import OutboxPublisher
from tests.contract.cache_entries import cached
from tests.unit.services import FIELDS, SLUG, CountingStore, SilentBus, resolver
from worker.relay import OutboxRelay


class Forwarding:
    """A listener that receives changes, but no gap."""

    def __init__(self, listener):
        self.on_changes = listener.on_changes

    def on_gap(self):
        pass


class WaitingBus(InProcessBus):
    """A broker that never answers a publish; `asked` is set by the first."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()

    async def publish(self, events):
        self.asked.set()
        await asyncio.Event().wait()


async def test_confirmed_change_leaves_the_outbox(embedded_store, links, cache, bus):
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(embedded_store, cache, bus))
    publishing = asyncio.create_task(publisher.run())
    links._deliver = publisher.deliver

    await links.create(FIELDS)

    while (await embedded_store.outbox_depth()).rows:
        await asyncio.sleep(0)
    publishing.cancel()


async def test_delivered_change_carries_the_time_of_its_commit(embedded_store, links, cache):
    published: list[LinkChanged] = []

    class Bus(InProcessBus):
        async def publish(self, events):
            published.extend(events)
            return await super().publish(events)

    bus = Bus()
    heard: list[LinkChanged] = []

    class Listener:
        def on_changes(self, changes):
            heard.extend(changes)

        def on_gap(self): ...

    await bus.listen(Listener())
    sync = CacheSync(embedded_store, cache, bus)
    publisher = OutboxPublisher(embedded_store, bus, sync, wall=lambda: 1_900_000_000.0)
    links._deliver = publisher.deliver

    await links.create(FIELDS, custom_slug=SLUG)
    await publisher.flush()

    assert [change.committed_at for change in [*published, *heard]] == [1_900_000_000.0] * 2
    await bus.aclose()


async def test_unconfirmed_change_stays_and_is_cached_directly(embedded_store, links, cache):
    bus = SilentBus()
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(embedded_store, cache, bus))
    links._deliver = publisher.deliver

    await links.create(FIELDS, custom_slug=SLUG)
    await publisher.flush()

    assert (await embedded_store.outbox_depth()).rows == 1
    assert await version_in(cache) == 1
    # From now on the request itself writes the cache.
    await links.change(SLUG, {"title": "new"})
    assert await version_in(cache) == 2


async def test_waiting_publish_does_not_delay_the_cache(embedded_store, links, cache):
    """Otherwise an L1 entry renewed meanwhile is an old copy, fresh for two seconds more."""
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


async def test_change_refused_by_the_cache_reaches_other_gateways(
    embedded_store, store, links, cache, bus, monotonic
):
    """A cache that refuses writes, or returns with its old data, holds the state before the change."""

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

    for seconds in (0, 3, 60, 120, 180):  # each redirect renews the minimum version
        monotonic.now += seconds
        assert (await redirects.resolve(SLUG)).version == 2


async def test_change_is_seen_everywhere_without_the_store(
    embedded_store, store, links, cache, bus, monotonic
):
    """Every gateway holds the link: it is served throughout, at its new version at once."""
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

    assert (await own_redirects.resolve(SLUG)).version == 2  # before the cache is written
    await publisher.flush()
    for seconds in (0, 3):
        monotonic.now += seconds
        assert (await own_redirects.resolve(SLUG)).version == 2
        assert (await other_redirects.resolve(SLUG)).version == 2


async def test_change_is_not_announced_without_cache_and_store(
    embedded_store, store, links, cache, bus, monotonic
):
    """Otherwise the other gateways would drop their copies and have nothing to serve."""

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


async def test_hanging_announcement_does_not_delay_the_cache(embedded_store, links, cache):
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


async def test_relay_drops_confirmed_rows_only(embedded_store, links, bus):
    await links.create(FIELDS)
    taken: list[OutboxEvent] = []

    class ReadyStore(CountingStore):
        def __getattr__(self, name):
            return getattr(embedded_store, name)

        async def take_events(self, *, limit, lease_s):  # the grace is tested with the adapter
            return taken

    taken.append(OutboxEvent(1, LinkChanged(SLUG, 1)))

    assert await OutboxRelay(ReadyStore(embedded_store), SilentBus()).sweep() == (1, True)
    assert (await embedded_store.outbox_depth()).rows == 1
    assert await OutboxRelay(ReadyStore(embedded_store), bus).sweep() == (1, False)
    assert (await embedded_store.outbox_depth()).rows == 0


async def test_publisher_logs_when_the_broker_stops_and_resumes(embedded_store, cache, caplog):
    bus = ChoosyBus()
    publisher = OutboxPublisher(embedded_store, bus, CacheSync(embedded_store, cache, bus))
    batch = [OutboxEvent(number, LinkChanged(SLUG, number)) for number in (1, 2, 3)]
    bus.takes = lambda events: [event.version == 1 for event in events]
    await publisher._publish(batch)
    await publisher._publish(batch)
    bus.takes = lambda events: [True] * len(events)
    await publisher._publish(batch)

    assert [record.getMessage() for record in caplog.records] == [
        "outbox publisher: the broker does not confirm 2 of 3 changes; the relay retries them",
        "outbox publisher: the broker confirms again",
    ]


async def test_relay_logs_when_it_waits_and_resumes(caplog):
    store, bus = LeasingStore(3), ChoosyBus()
    relay = OutboxRelay(store, bus, poll_s=0.001)
    refusals = iter([True, True])
    bus.takes = lambda events: [not next(refusals, False)] * len(events)

    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(5):
        while len(caplog.records) < 2:
            await asyncio.sleep(0)
    running.cancel()

    assert [record.getMessage() for record in caplog.records] == [
        "outbox relay waiting: the broker did not confirm 3 of 3 changes",
        "outbox relay resumed",
    ]


async def version_in(cache) -> int:
    """Return the version of the link in *cache*."""
    held = await cached(cache, SLUG)
    assert held is not None
    return held.version


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

    async def outbox_depth(self):
        return OutboxDepth(len(self.rows), 0.0)


class ChoosyBus(InProcessBus):
    """A broker that confirms what *takes* returns for each batch."""

    def __init__(self):
        super().__init__()
        self.takes = lambda events: [True] * len(events)

    async def publish(self, events):
        return self.takes(events)


async def test_relay_leases_one_batch_while_the_broker_refuses():
    """Batches leased in vain would have to wait for the end of their leases after the outage."""
    store, bus = LeasingStore(500), ChoosyBus()
    relay = OutboxRelay(store, bus)
    bus.takes = lambda events: [False] * len(events)
    for _ in range(5):
        assert await relay.sweep() == (200, True)
    assert store.leased == 200

    bus.takes = lambda events: [True] * len(events)

    assert [await relay.sweep() for _ in range(4)] == [(200, False), (200, False), (100, False), (0, False)]
    assert not store.rows


async def test_relay_continues_beside_refused_events():
    store, bus = LeasingStore(500), ChoosyBus()
    relay = OutboxRelay(store, bus)
    bus.takes = lambda events: [event.version != 7 for event in events]

    while (moved := await relay.sweep()) != (1, True):
        assert moved[1]

    assert list(store.rows) == [7]


async def test_relay_publishes_kept_events_once_after_their_lease():
    store, bus = LeasingStore(3), ChoosyBus()
    relay = OutboxRelay(store, bus)
    bus.takes = lambda events: [False] * len(events)
    await relay.sweep()
    store._free = list(store.rows.values())
    offered: list[int] = []

    def take(events):
        offered.extend(event.version for event in events)
        return [True] * len(events)

    bus.takes = take

    await relay.sweep()

    assert offered == [1, 2, 3]
    assert not store.rows
