"""
Resolves slugs from ever slower sources: the L1 cache, the shared cache, a replica, the store.

Concurrent look-ups of one slug are coalesced into one, and look-ups of several slugs are batched. So
a flood of misses costs cache and store a few queries, each slug is read once, and a caller that goes
away cancels no other caller's look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from app.concurrency.batches import Batches
from app.concurrency.origins import on_behalf_of, origins, together
from app.domain.errors import Unavailable
from app.domain.events import LinksMissed
from app.domain.link import Resolution, Slug
from app.domain.origin import Origin
from app.ports import EventBus, LinkCache, LinkReplica, LinkStore
from app.resilience.admission import AdmissionController, WorkKind
from app.service.l1_cache import L1Cache

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

# Misses within this time are published as one event.
_FILL_INTERVAL_S = 0.01
_MAX_FILL = 1000
# Few concurrent queries make large batches, which are cheap; the last one is sent while the replies to
# the others are read.
_CACHE_QUERIES, _STORE_QUERIES = 2, 4
_MAX_BATCH = 500


class Waiter(Protocol[T_contra]):
    """Waits for a look-up: a future, or what stands for many requests of a data plane."""

    def done(self) -> bool:
        """Does nothing wait any more?"""

    def set_result(self, answer: T_contra, /) -> None:
        """Receive the answer."""

    def set_exception(self, error: Exception, /) -> None:
        """Receive the error instead."""


class _LookUp(Generic[T]):
    """One slug that is being looked up, and the callers that wait for it."""

    __slots__ = ("entered", "is_second", "waiters")

    def __init__(self, entered: float) -> None:
        self.entered = entered
        self.waiters: list[Waiter[T]] = []
        self.is_second = False


@dataclass(slots=True)
class LayerCounts:
    """Slugs that a layer had, had not (or too old), and did not answer for."""

    hits: int = 0
    misses: int = 0
    failures: int = 0


class Resolver(Generic[T]):
    """
    Resolves slugs to responses of type T (see `L1Cache`), at most two seconds stale.

    With a *replica*, a change that this process missed and that Redis does not hold shows up to
    `REPLICA_LAG_S` later still. Only the store decides that a slug is unknown: a cache miss, or a
    cache that is away, does not. Belongs to one event loop.
    """

    def __init__(
        self,
        l1: L1Cache[T],
        cache: LinkCache,
        store: LinkStore,
        bus: EventBus,
        admission: AdmissionController,
        *,
        replica: LinkReplica | None = None,
    ) -> None:
        self._l1 = l1
        self._cache = cache
        self._store = store
        self._bus = bus
        self._admission = admission
        self._replica = replica
        # Look-ups by the source that resolved them.
        self.look_ups = {"cache": 0, "replica": 0, "store": 0, "failed": 0}
        # What each layer below the L1 cache was asked for; counted for every slug of a batch.
        self.layers = {layer: LayerCounts() for layer in ("cache", "replica", "store")}
        self.stale_answers = 0
        self._under_way: dict[Slug, _LookUp[T]] = {}
        self._from_cache = Batches(self._ask_cache, max_under_way=_CACHE_QUERIES, max_batch=_MAX_BATCH)
        self._from_store = Batches(self._ask_store, max_under_way=_STORE_QUERIES, max_batch=_MAX_BATCH)
        self._from_replica = Batches(self._ask_replica, max_under_way=_STORE_QUERIES, max_batch=_MAX_BATCH)
        # With the store's resolution; None if it came from a replica.
        self._missed: dict[Slug, Resolution | None] = {}
        self._missed_by: tuple[Origin, ...] = ()
        self._missed_some = asyncio.Event()

    async def resolve(self, slug: Slug) -> T:
        """
        Return the response for *slug*, however long that takes: the caller bounds its request.

        Raises:
            Unavailable: no cached copy, and the store did not answer.
            Overloaded: it needs a look-up, and admission control refuses it.
        """
        entry = self._l1.get(slug)
        if entry is not None:
            return entry.answer
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.join(slug, waiter)
        return await waiter

    def join(self, slug: Slug, waiter: Waiter[T]) -> None:
        """
        Look *slug* up for *waiter*, or let it wait for the look-up under way. Not for a slug that is in L1.

        Raises:
            Overloaded: as `resolve`.
        """
        look_up = self._under_way.get(slug)
        if look_up is None:
            # Only the caller that starts the look-up needs admission: joining it costs nothing.
            look_up = self._under_way[slug] = _LookUp(self._admission.enter(WorkKind.LOOK_UP))
            self._from_cache.add(slug)
        look_up.waiters.append(waiter)

    def is_known(self, slug: Slug) -> bool:
        """Would `resolve` return without starting a look-up?"""
        return slug in self._under_way or self._l1.get(slug) is not None

    def stale(self, slug: Slug) -> T | None:
        """Return the last response for *slug* (stale-if-error), for when `resolve` fails."""
        entry = self._l1.stale(slug)
        if entry is None:
            return None
        self.stale_answers += 1
        return entry.answer

    async def run(self) -> None:
        """Publish misses, so that a worker fills the shared cache, until cancelled."""
        while True:
            await self._missed_some.wait()
            await asyncio.sleep(_FILL_INTERVAL_S)
            self._missed_some.clear()
            missed, self._missed = self._missed, {}
            missed_by, self._missed_by = self._missed_by, ()
            with on_behalf_of(missed_by):
                await self._fill(missed)

    async def aclose(self) -> None:
        """Stop all look-ups."""
        for batches in (self._from_cache, self._from_replica, self._from_store):
            await batches.aclose()

    async def _ask_cache(self, slugs: list[Slug]) -> None:
        counts = self.layers["cache"]
        try:
            held = await self._cache.get_many(slugs)
        except Unavailable:
            counts.failures += len(slugs)
            held = None
        except Exception as error:  # noqa: BLE001 - a bug: the waiting callers get it
            self._fail(slugs, error)
            return
        further = self._from_store if self._replica is None else self._from_replica
        for slug in slugs:
            cached = held.get(slug) if held is not None else None
            if cached is None or not self._settle(slug, cached, "cache"):
                counts.misses += held is not None
                further.add(slug)
            else:
                counts.hits += 1

    async def _ask_replica(self, slugs: list[Slug]) -> None:
        try:
            copies = await self._replica.resolve(slugs) if self._replica is not None else {}
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(slugs, error)
            return
        counts = self.layers["replica"]
        for slug in slugs:
            copy = copies.get(slug)
            if copy is None or not self._settle(slug, copy, "replica"):
                counts.misses += 1
                self._from_store.add(slug)
            else:
                counts.hits += 1
                self._note_missed(slug, None)

    async def _ask_store(self, slugs: list[Slug]) -> None:
        awaited = [slug for slug in slugs if self._is_awaited(slug)]
        if not awaited:
            return
        try:
            stored = await self._store.resolve(awaited)
        except Exception as error:  # noqa: BLE001 - as above
            self.layers["store"].failures += len(awaited)
            self._fail(awaited, error)
            return
        self.layers["store"].hits += len(stored)
        self.layers["store"].misses += len(awaited) - len(stored)
        for one in stored.values():
            self._l1.follow_epoch(one.epoch)  # the first of them: all were read together
            break
        for slug in awaited:
            resolution = stored.get(slug) or Resolution.absent(slug)
            look_up = self._under_way[slug]
            if not self._settle(slug, resolution, "store", is_last=look_up.is_second):
                # It changed while it was read, and a caller may have joined since: read it again.
                look_up.is_second = True
                self._from_store.add(slug)
            elif resolution.version > 0:
                # Unknown slugs are cached in this process only: a scan must not fill the shared cache.
                self._note_missed(slug, resolution)

    def _is_awaited(self, slug: Slug) -> bool:
        """Does a caller still wait for *slug*? If not, end its look-up."""
        if all(waiter.done() for waiter in self._under_way[slug].waiters):
            self._end(slug, succeeded=False)
            return False
        return True

    def _settle(self, slug: Slug, resolution: Resolution, source: str, *, is_last: bool = False) -> bool:
        """Resolve *slug* for its waiting callers; False if *resolution* is outdated: try the next source."""
        try:
            entry = self._l1.put(resolution) if is_last else self._l1.offer(resolution)
        except Exception as error:  # noqa: BLE001 - a stored link that cannot be rendered must fail alone
            self._fail([slug], error)
            return True
        if entry is None:
            return False
        self.look_ups[source] += 1
        for waiter in self._end(slug, succeeded=True):
            if not waiter.done():
                waiter.set_result(entry.answer)
        return True

    def _fail(self, slugs: Sequence[Slug], error: Exception) -> None:
        for slug in slugs:
            for waiter in self._end(slug, succeeded=False):
                if not waiter.done():
                    waiter.set_exception(error)

    def _end(self, slug: Slug, *, succeeded: bool) -> list[Waiter[T]]:
        """End the look-up of *slug* and return its waiting callers."""
        look_up = self._under_way.pop(slug)
        self._admission.leave(WorkKind.LOOK_UP, look_up.entered, succeeded=succeeded)
        self.look_ups["failed"] += not succeeded
        return look_up.waiters

    def _note_missed(self, slug: Slug, resolution: Resolution | None) -> None:
        # Bounded, as a flood of misses would fill it; a slug that is left out is missed again later.
        if len(self._missed) < _MAX_FILL:
            self._missed[slug] = resolution
            if asked_by := origins():
                self._missed_by = together((self._missed_by, asked_by))
            self._missed_some.set()

    async def _fill(self, missed: Mapping[Slug, Resolution | None]) -> None:
        event = LinksMissed(tuple(missed))
        taken = await self._bus.publish([event])
        if not all(taken):
            # The broker is away: write the resolutions that the worker would read and write.
            with contextlib.suppress(Unavailable):
                await self._cache.put([known for known in missed.values() if known is not None])
