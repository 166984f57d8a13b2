"""
Resolves slugs from ever slower sources: the L1 cache, the shared cache, a replica, the store.

Concurrent look-ups of one slug are coalesced into one, and look-ups of several slugs are batched. So
a flood of misses costs cache and store a few queries, each slug is read once, and a caller that goes
away cancels no other caller's look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from app.concurrency.batches import Batches
from app.concurrency.origins import on_behalf_of, origins, together
from app.domain.errors import Overloaded, Unavailable
from app.domain.events import LinksMissed
from app.domain.link import Resolution, Slug
from app.domain.origin import Origin
from app.ports import EventBus, LinkCache, LinkReplica, LinkStore
from app.resilience.admission import AdmissionController, WorkKind
from app.service.l1_cache import L1, L1Entry

T = TypeVar("T")

# Misses within this time are published as one event.
_FILL_INTERVAL_S = 0.01
_MAX_FILL = 1000
# Few concurrent queries make large batches, which are cheap; the last one is sent while the replies to
# the others are read.
_CACHE_QUERIES, _STORE_QUERIES = 2, 4
# A crowd that asks for fewer slugs beside a query waits for its end.
_FURTHER_QUERY = 16
_MAX_BATCH = 500


class Crowd(Protocol):
    """
    What waits for many look-ups: the requests of a data plane.

    The answers that the L1 cache keeps reach it by that cache: it is the table of the data plane.
    """

    def awaited(self, slugs: Sequence[Slug]) -> Sequence[Slug]:
        """Return those of *slugs* that something still waits for, and forget the others."""

    def set_exception(self, slugs: Sequence[Slug], error: Exception, /) -> None:
        """Receive the error that the look-ups of *slugs* ended with."""


class _LookUp:
    """The look-up of one slug, or of many that began together."""

    __slots__ = ("crowd", "entered")

    def __init__(self, entered: float, crowd: Crowd | None) -> None:
        self.entered = entered
        self.crowd = crowd


class _NoneWait:
    """The crowd of look-ups that nothing waits for."""

    def awaited(self, slugs: Sequence[Slug]) -> Sequence[Slug]:
        return slugs

    def set_exception(self, slugs: Sequence[Slug], error: Exception, /) -> None:
        """Leave the entries as they are."""


_NONE_WAIT = _NoneWait()


@dataclass(slots=True)
class LayerCounts:
    """Slugs that a layer had, had not (or too old), and did not answer for."""

    hits: int = 0
    misses: int = 0
    failures: int = 0


class Resolver(Generic[T]):
    """
    Resolves slugs to responses of type T (see `L1`), at most two seconds stale.

    With a *replica*, a change that this process missed and that Redis does not hold shows up to
    `REPLICA_LAG_S` later still. Only the store decides that a slug is unknown: a cache miss, or a
    cache that is away, does not. Belongs to one event loop.
    """

    def __init__(
        self,
        l1: L1[T],
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
        self._under_way: dict[Slug, _LookUp] = {}
        # Of those, the callers that wait for one slug each, and the slugs that are read a second time.
        self._callers: dict[Slug, list[asyncio.Future[T]]] = {}
        self._read_again: set[Slug] = set()
        # Called at the end of each query of the first source: there is room for another one.
        self.on_room: Callable[[], None] = lambda: None
        self._from_cache = Batches(
            self._ask_cache,
            max_under_way=_CACHE_QUERIES,
            max_batch=_MAX_BATCH,
            on_end=self._tell_room,
        )
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
        if slug not in self._under_way:
            # Only the caller that starts the look-up needs admission: joining it costs nothing.
            self._under_way[slug] = _LookUp(self._admission.enter(WorkKind.LOOK_UP), None)
            self._from_cache.add(slug)
        caller: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._callers.setdefault(slug, []).append(caller)
        return await caller

    @property
    def room_from(self) -> int | None:
        """
        From how many slugs on another query is worth while; None: there is no room for one.

        Larger queries cost less for each slug, so few slugs wait for the end of the one that is under way.
        """
        under_way = self._from_cache.under_way
        if under_way >= _CACHE_QUERIES:
            return None
        return _FURTHER_QUERY if under_way else 1

    def look_up(self, slugs: Sequence[Slug], crowd: Crowd) -> None:
        """
        Look *slugs* up for *crowd*, or let it wait for the look-ups under way. Not for slugs that are in L1.

        Those that admission control refuses end with `Overloaded`.
        """
        under_way = self._under_way
        new = []
        for slug in slugs:
            look_up = under_way.get(slug)
            if look_up is None:
                new.append(slug)
            elif look_up.crowd is not crowd:
                under_way[slug] = _LookUp(look_up.entered, crowd)
        refused = self._begin(new, crowd)
        if refused:
            crowd.set_exception(refused, Overloaded())

    def renew(self, slugs: Iterable[Slug]) -> None:
        """Look *slugs* up though L1 has them, for nothing that waits: an error leaves them as they are."""
        under_way = self._under_way
        self._begin([slug for slug in slugs if slug not in under_way], _NONE_WAIT)

    def _begin(self, slugs: Sequence[Slug], crowd: Crowd) -> Sequence[Slug]:
        """Begin these look-ups; return those that admission control refuses."""
        slugs = list(dict.fromkeys(slugs))  # each is admitted, and ends, once
        admitted, entered = self._admission.enter_many(WorkKind.LOOK_UP, len(slugs))
        taken = slugs if admitted == len(slugs) else slugs[:admitted]
        self._under_way.update(dict.fromkeys(taken, _LookUp(entered, crowd)))
        self._from_cache.add_many(taken)
        return slugs[admitted:]

    def is_known(self, slug: Slug) -> bool:
        """Would `resolve` return without starting a look-up?"""
        return slug in self._under_way or self._l1.get(slug) is not None

    def stale(self, slug: Slug, requests: int = 1) -> T | None:
        """Return the last response for *slug* (stale-if-error), for when `resolve` fails for *requests*."""
        entry = self._l1.stale(slug)
        if entry is None:
            return None
        self.stale_answers += requests
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

    def _tell_room(self) -> None:
        self.on_room()

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
        if held is None:
            further.add_many(slugs)
            return
        outdated = self._settle([held[slug] for slug in slugs if slug in held], "cache")
        absent = slugs if not held else [slug for slug in slugs if slug not in held]
        counts.hits += len(slugs) - len(absent) - len(outdated)
        counts.misses += len(absent) + len(outdated)
        further.add_many([*absent, *outdated])

    async def _ask_replica(self, slugs: list[Slug]) -> None:
        try:
            copies = await self._replica.resolve(slugs) if self._replica is not None else {}
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(slugs, error)
            return
        counts = self.layers["replica"]
        outdated = set(self._settle([copies[slug] for slug in slugs if slug in copies], "replica"))
        further = [slug for slug in slugs if slug not in copies or slug in outdated]
        counts.misses += len(further)
        counts.hits += len(slugs) - len(further)
        self._note_missed({slug: None for slug in copies if slug not in outdated})
        self._from_store.add_many(further)

    async def _ask_store(self, slugs: list[Slug]) -> None:
        awaited = self._awaited(slugs)
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
        found = [stored.get(slug) or Resolution.absent(slug) for slug in awaited]
        outdated = self._settle(found, "store")
        if outdated:
            self._read_twice(outdated, stored)
        # Unknown slugs are cached in this process only: a scan must not fill the shared cache.
        missed = {slug: one for slug, one in stored.items() if one.version > 0}
        for slug in outdated:
            missed.pop(slug, None)
        self._note_missed(missed)

    def _read_twice(self, slugs: Sequence[Slug], stored: Mapping[Slug, Resolution]) -> None:
        """They changed while they were read, and a caller may have joined since: read them again, once."""
        for slug in slugs:
            if slug not in self._read_again:
                self._read_again.add(slug)
                self._from_store.add(slug)
                continue
            resolution = stored.get(slug) or Resolution.absent(slug)
            try:
                entry = self._l1.put(resolution)
            except Exception as error:  # noqa: BLE001 - as in `L1Cache.offer_many`
                self._fail([slug], error)
                continue
            self._answer([slug], [entry], "store")
            if resolution.version > 0:
                self._note_missed({slug: resolution})

    def _awaited(self, slugs: Sequence[Slug]) -> Sequence[Slug]:
        """Return the slugs that a caller still waits for, and end the look-ups of the others."""
        crowds: dict[Crowd | None, list[Slug]] = {}
        for slug in slugs:
            crowds.setdefault(self._under_way[slug].crowd, []).append(slug)
        given_up = set(slugs)
        for crowd, asked in crowds.items():
            if crowd is not None:
                given_up.difference_update(crowd.awaited(asked))
        given_up = {slug for slug in given_up if all(one.done() for one in self._callers.get(slug, ()))}
        if not given_up:
            return slugs
        self._end(list(given_up), succeeded=False)
        return [slug for slug in slugs if slug not in given_up]

    def _settle(self, resolutions: Sequence[Resolution], source: str) -> list[Slug]:
        """Answer with *resolutions*; return the slugs whose resolution is outdated: try the next source."""
        settled: list[Slug] = []
        entries: list[L1Entry[T]] = []
        outdated: list[Slug] = []
        for resolution, outcome in zip(resolutions, self._l1.offer_many(resolutions), strict=True):
            if outcome is None:
                outdated.append(resolution.slug)
            elif isinstance(outcome, Exception):
                self._fail([resolution.slug], outcome)
            else:
                settled.append(resolution.slug)
                entries.append(outcome)
        self._answer(settled, entries, source)
        return outdated

    def _answer(self, slugs: Sequence[Slug], entries: Sequence[L1Entry[T]], source: str) -> None:
        """End the look-ups of *slugs* with *entries*."""
        self.look_ups[source] += len(slugs)
        self._end(slugs, succeeded=True)
        if self._callers:
            for slug, entry in zip(slugs, entries, strict=True):
                for caller in self._callers.pop(slug, ()):
                    if not caller.done():
                        caller.set_result(entry.answer)

    def _fail(self, slugs: Sequence[Slug], error: Exception) -> None:
        crowds: dict[Crowd, list[Slug]] = {}
        for slug in slugs:
            crowd = self._under_way[slug].crowd
            if crowd is not None:
                crowds.setdefault(crowd, []).append(slug)
            for caller in self._callers.pop(slug, ()):
                if not caller.done():
                    caller.set_exception(error)
        self._end(slugs, succeeded=False)
        for crowd, asked in crowds.items():
            crowd.set_exception(asked, error)

    def _end(self, slugs: Sequence[Slug], *, succeeded: bool) -> None:
        """The look-ups of *slugs* are over."""
        entered = [look_up.entered for look_up in map(self._under_way.pop, slugs)]
        self._admission.leave_many(WorkKind.LOOK_UP, entered, succeeded=succeeded)
        if self._read_again:
            self._read_again.difference_update(slugs)
        if not succeeded:
            self.look_ups["failed"] += len(slugs)
            for slug in slugs:
                self._callers.pop(slug, None)

    def _note_missed(self, missed: Mapping[Slug, Resolution | None]) -> None:
        # Bounded, as a flood of misses would fill it; a slug that is left out is missed again later.
        if missed and len(self._missed) < _MAX_FILL:
            self._missed.update(islice(missed.items(), _MAX_FILL - len(self._missed)))
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
