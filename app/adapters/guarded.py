"""
The three ports again, guarded: what a service holds when a dependency is on the network.

What happens when a guard says no is declared here and nowhere else:

    GuardedStore    Unavailable. Redirects are then served from the caches, anything else is 503.
    GuardedCache    Unavailable. A read asks the store instead, a write is left to the worker.
    GuardedBus      publish answers False: the outbox keeps the debt and the writer writes the
                    cache itself, clicks go to the disk. announce is Unavailable: the worker
                    gives the batch again.

Reads and writes have guards of their own, as a store or cache that refuses writes (a full
disk, a replica, no memory) still answers reads. `ping` is not guarded: it is how one looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.errors import Unavailable
from app.domain.events import ClicksCounted, Event, LinkChanged
from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug
from app.ports import (
    Added,
    ApiKey,
    CachePage,
    Changed,
    EventBus,
    EventHandler,
    IdempotentRequest,
    InvalidationListener,
    LinkCache,
    LinkStore,
    OutboxDepth,
    OutboxEvent,
    Page,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)
from app.resilience.breaker import BreakerPolicy
from app.resilience.deadline import (
    CACHE_FILL_S,
    CACHE_S,
    LOOKUP_S,
    LOOKUP_WAIT_S,
    PUBLISH_S,
    REPLICA_S,
    STORE_S,
    STORE_WAIT_S,
)
from app.resilience.guard import Guard, GuardSnapshot, Limits
from app.resilience.retry import RetryBudget

# Shares of the pool's eight connections: neither a flood of misses nor one of listings may
# take them all.
_LOOKUP = Limits(max_running=4, max_waiting=64, wait_s=LOOKUP_WAIT_S, call_s=LOOKUP_S)
# As many as it has connections; nobody waits, as there is a primary to ask.
_REPLICA = Limits(max_running=4, max_waiting=0, wait_s=0, call_s=REPLICA_S)
_CHANGE = Limits(max_running=2, max_waiting=64, wait_s=STORE_WAIT_S, call_s=STORE_S)
# Those share round trips, and so two connections.
_CREATE = Limits(max_running=128, max_waiting=0, wait_s=0, call_s=STORE_S)
_BULK = Limits(max_running=2, max_waiting=64, wait_s=STORE_WAIT_S, call_s=STORE_S)
# Redirects share round trips: this is for everything else.
_MAX_READS = 64
_WRITE = Limits(max_running=16, max_waiting=64, wait_s=CACHE_S, call_s=2 * CACHE_FILL_S)
_PUBLISH = Limits(max_running=256, max_waiting=0, wait_s=0, call_s=PUBLISH_S)

_PATIENT = BreakerPolicy()
# A broker that is silent costs each call more than a second: three are enough to know. Visitors
# do not wait for it, and a lost connection is noticed elsewhere: so it may be tried often.
_IMPATIENT = BreakerPolicy(min_calls=3, longest_open_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreGuards:
    """For look-ups, for single new links, for other changes, and for what takes or gives many rows."""

    lookup: Guard
    create: Guard
    change: Guard
    bulk: Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGuards:
    """For reads and for writes."""

    read: Guard
    write: Guard


class Guards:
    """
    All guards of one process, on their own clock.

    Args:
        cache_read_s: how long a read of the cache may take.
    """

    def __init__(self, *, cache_read_s: float = CACHE_S) -> None:
        retries = RetryBudget()
        read = Limits(max_running=_MAX_READS, max_waiting=0, wait_s=0, call_s=cache_read_s)
        self.store = StoreGuards(
            lookup=Guard("postgresql", _LOOKUP, BreakerPolicy(slow_s=LOOKUP_S * 0.8), budget=retries),
            create=Guard("postgresql", _CREATE, _PATIENT),
            change=Guard("postgresql", _CHANGE, _PATIENT),
            bulk=Guard("postgresql", _BULK, _PATIENT, budget=retries),
        )
        self._cache_read = read, BreakerPolicy(slow_s=cache_read_s * 0.8, silent_s=0.1)
        self.cache = self._cache_guards()
        self._shards: dict[str, CacheGuards] = {}
        self._replicas: list[Guard] = []
        self.publish = Guard("rabbitmq", _PUBLISH, _IMPATIENT)

    def shard(self, name: str) -> CacheGuards:
        """Return the guards of one shard of the cache: a shard that fails says nothing about the others."""
        if name not in self._shards:
            self._shards[name] = self._cache_guards()
        return self._shards[name]

    def forget_shard(self, name: str) -> None:
        """Show the guards of a shard no more: nobody asks it, so they would never close again."""
        self._shards.pop(name, None)

    def replica(self) -> Guard:
        """Return a guard for one more replica of the store."""
        self._replicas.append(Guard("postgresql", _REPLICA, BreakerPolicy(slow_s=REPLICA_S * 0.8)))
        return self._replicas[-1]

    def snapshot(self) -> Mapping[str, GuardSnapshot]:
        """Return how each guard stands, by a name that stays the same between releases."""
        shards = {
            f"redis.{way}@{name}": guard.snapshot()
            for name, guards in self._shards.items()
            for way, guard in (("read", guards.read), ("write", guards.write))
        }
        replicas = {
            f"postgresql.replica@{number}": guard.snapshot()
            for number, guard in enumerate(self._replicas, start=1)
        }
        return {
            **shards,
            **replicas,
            "postgresql.lookup": self.store.lookup.snapshot(),
            "postgresql.create": self.store.create.snapshot(),
            "postgresql.change": self.store.change.snapshot(),
            "postgresql.bulk": self.store.bulk.snapshot(),
            "redis.read": self.cache.read.snapshot(),
            "redis.write": self.cache.write.snapshot(),
            "rabbitmq.publish": self.publish.snapshot(),
        }

    def _cache_guards(self) -> CacheGuards:
        return CacheGuards(
            # Visitors have the store to ask: as few as can be should be who notices that Redis is silent.
            read=Guard("redis", *self._cache_read, probes_aside=True),
            write=Guard("redis", _WRITE, _PATIENT),
        )


class GuardedStore:
    """`LinkStore` behind guards. Reads whose connection was lost are done once more, within a budget."""

    def __init__(self, store: LinkStore, guards: StoreGuards) -> None:
        self._store = store
        self._lookup = guards.lookup
        self._create = guards.create
        self._change = guards.change
        self._bulk = guards.bulk

    async def add(
        self, new: Sequence[NewLink], *, now: datetime, request: IdempotentRequest | None = None
    ) -> Added | Replayed | RequestMismatch:
        """See `LinkStore.add`."""
        guard = self._create if request is None else self._change
        return await guard.call(lambda: self._store.add(new, now=now, request=request))

    async def get(self, slug: Slug) -> Link | None:
        """See `LinkStore.get`."""
        return await self._lookup.read(lambda: self._store.get(slug))

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        """See `LinkStore.get_many`."""
        return await self._bulk.read(lambda: self._store.get_many(slugs))

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """See `LinkStore.resolve`."""
        return await self._lookup.read(lambda: self._store.resolve(slugs))

    async def page(self, *, after: int | None, limit: int) -> Page:
        """See `LinkStore.page`."""
        return await self._bulk.read(lambda: self._store.page(after=after, limit=limit))

    async def update(
        self, slug: Slug, fields: LinkFields, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | None:
        """See `LinkStore.update`."""
        return await self._change.call(
            lambda: self._store.update(slug, fields, expected_version=expected_version, now=now)
        )

    async def remove(
        self, slug: Slug, *, expected_version: int | None, now: datetime
    ) -> Changed | VersionMismatch | None:
        """See `LinkStore.remove`."""
        return await self._change.call(
            lambda: self._store.remove(slug, expected_version=expected_version, now=now)
        )

    async def touch(self, slugs: Sequence[Slug]) -> Sequence[Changed]:
        """See `LinkStore.touch`."""
        return await self._change.call(lambda: self._store.touch(slugs))

    async def take_events(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:
        """See `LinkStore.take_events`."""
        return await self._bulk.call(lambda: self._store.take_events(limit=limit, lease_s=lease_s))

    async def drop_events(self, ids: Sequence[int]) -> None:
        """See `LinkStore.drop_events`."""
        await self._bulk.call(lambda: self._store.drop_events(ids))

    async def outbox_depth(self) -> OutboxDepth:
        """See `LinkStore.outbox_depth`."""
        return await self._bulk.read(self._store.outbox_depth)

    async def forget_requests(self, *, before: datetime) -> int:
        """See `LinkStore.forget_requests`."""
        return await self._bulk.call(lambda: self._store.forget_requests(before=before))

    async def fold_clicks(self, counted: ClicksCounted, *, now: datetime) -> bool:
        """See `LinkStore.fold_clicks`."""
        return await self._bulk.call(lambda: self._store.fold_clicks(counted, now=now))

    async def hourly_clicks(self, slug: Slug, *, since: datetime, until: datetime) -> Mapping[datetime, int]:
        """See `LinkStore.hourly_clicks`."""
        return await self._bulk.read(lambda: self._store.hourly_clicks(slug, since=since, until=until))

    async def forget_batches(self, *, before: datetime) -> int:
        """See `LinkStore.forget_batches`."""
        return await self._bulk.call(lambda: self._store.forget_batches(before=before))

    async def lease_visits(self, slug: Slug) -> int | None:
        """See `LinkStore.lease_visits`."""
        return await self._change.call(lambda: self._store.lease_visits(slug))

    async def return_visits(self, slug: Slug, visits: int) -> None:
        """See `LinkStore.return_visits`."""
        await self._change.call(lambda: self._store.return_visits(slug, visits))

    async def add_key(self, key: ApiKey) -> None:
        """See `LinkStore.add_key`."""
        await self._change.call(lambda: self._store.add_key(key))

    async def get_key(self, key_id: str) -> ApiKey | None:
        """See `LinkStore.get_key`."""
        return await self._lookup.read(lambda: self._store.get_key(key_id))

    async def list_keys(self) -> Sequence[ApiKey]:
        """See `LinkStore.list_keys`."""
        return await self._bulk.read(self._store.list_keys)

    async def revoke_key(self, key_id: str, *, now: datetime) -> bool:
        """See `LinkStore.revoke_key`."""
        return await self._change.call(lambda: self._store.revoke_key(key_id, now=now))

    async def ping(self) -> None:
        """See `LinkStore.ping`."""
        await self._store.ping()

    async def aclose(self) -> None:
        """See `LinkStore.aclose`."""
        await self._store.aclose()


class GuardedCache:
    """`LinkCache` behind guards. Nothing is tried twice: the store is the retry."""

    def __init__(self, cache: LinkCache, guards: CacheGuards) -> None:
        self._cache = cache
        self._read = guards.read
        self._write = guards.write

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """See `LinkCache.get_many`."""
        return await self._read.call(lambda: self._cache.get_many(slugs))

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """See `LinkCache.put`."""
        return await self._write.call(lambda: self._cache.put(resolutions))

    async def scan(self, cursor: int) -> CachePage:
        """See `LinkCache.scan`."""
        return await self._read.call(lambda: self._cache.scan(cursor))

    async def forget(self, slugs: Sequence[Slug]) -> None:
        """See `LinkCache.forget`."""
        await self._write.call(lambda: self._cache.forget(slugs))

    async def ping(self) -> None:
        """See `LinkCache.ping`."""
        await self._cache.ping()

    async def aclose(self) -> None:
        """See `LinkCache.aclose`."""
        await self._cache.aclose()


class _Unconfirmed(Unavailable):
    """The broker did not take everything; `taken` says what it took."""

    def __init__(self, taken: Sequence[bool]) -> None:
        super().__init__("rabbitmq", "did not confirm everything")
        self.taken = taken


class GuardedBus:
    """`EventBus` behind a guard. Consuming and listening watch over themselves (see `EventBus`)."""

    def __init__(self, bus: EventBus, publish: Guard) -> None:
        self._bus = bus
        self._guard = publish

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """See `EventBus.publish`. At once False for all while the guard refuses."""

        async def work() -> Sequence[bool]:
            taken = await self._bus.publish(events)
            if not all(taken):
                raise _Unconfirmed(taken)
            return taken

        try:
            return await self._guard.call(work)
        except _Unconfirmed as error:
            return error.taken
        except Unavailable:
            return [False] * len(events)

    async def announce(self, changes: Sequence[LinkChanged]) -> None:
        """See `EventBus.announce`."""
        await self._guard.call(lambda: self._bus.announce(changes))

    async def listen(self, listener: InvalidationListener) -> None:
        """See `EventBus.listen`."""
        await self._bus.listen(listener)

    async def consume(self, handler: EventHandler) -> None:
        """See `EventBus.consume`."""
        await self._bus.consume(handler)

    async def consume_clicks(self, handler: EventHandler) -> None:
        """See `EventBus.consume_clicks`."""
        await self._bus.consume_clicks(handler)

    async def ping(self) -> None:
        """See `EventBus.ping`."""
        await self._bus.ping()

    async def aclose(self) -> None:
        """See `EventBus.aclose`."""
        await self._bus.aclose()
