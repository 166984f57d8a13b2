"""
Slug → answer, by way of ever slower places: this process, the shared cache, a replica, the store.

Whoever misses a slug waits with all who miss it meanwhile, and the slugs that are missed
together are asked for together. So however many come at once, cache and store hear of each slug
once, in few questions; and whoever goes away takes nobody's answer along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from app.domain.errors import Unavailable
from app.domain.events import LinksMissed
from app.domain.link import Resolution, Slug
from app.ports import EventBus, LinkCache, LinkReplica, LinkStore
from app.resilience.admission import Kind
from app.resilience.batches import Batches
from app.resilience.deadline import RESOLVE_S
from app.resilience.expiry import Expiry
from app.service.admission import Entrance
from app.service.hot_links import HotLinks

T = TypeVar("T")

# Slugs missed within this time are reported together.
_FILL_INTERVAL_S = 0.01
_MAX_FILL = 1000
# Few questions under way make batches large, which is what makes them cheap; one more than
# needed is asked while the answers to the others are read.
_CACHE_QUESTIONS, _STORE_QUESTIONS = 2, 4
_MAX_QUESTION = 500


class _LookUp(Generic[T]):
    """One slug that is being asked for, and who waits for the answer."""

    __slots__ = ("entered", "is_second", "waiters")

    def __init__(self, entered: float) -> None:
        self.entered = entered
        self.waiters: list[asyncio.Future[T]] = []
        self.is_second = False


class Redirects(Generic[T]):
    """
    Resolves slugs to answers of type T (see `HotLinks`), at most two seconds stale.

    With a *replica*, a change that this process was not told of, and that Redis does not hold, is
    seen `REPLICA_LAG_S` later still. 404 is decided by the store alone: a cache that knows nothing,
    or is away, proves nothing. Belongs to one event loop.

    Args:
        limit_s: how long anybody waits for an answer, in seconds.
    """

    def __init__(
        self,
        hot: HotLinks[T],
        cache: LinkCache,
        store: LinkStore,
        bus: EventBus,
        entrance: Entrance,
        *,
        replica: LinkReplica | None = None,
        limit_s: float = RESOLVE_S,
    ) -> None:
        self._hot = hot
        self._cache = cache
        self._store = store
        self._bus = bus
        self._entrance = entrance
        self._replica = replica
        # How often who knew, and how often nobody had to.
        self.look_ups = {"cache": 0, "replica": 0, "store": 0, "failed": 0}
        self.stale_answers = 0
        self._limit_s = limit_s
        self._expiry = Expiry(limit_s)
        self._under_way: dict[Slug, _LookUp[T]] = {}
        self._from_cache = Batches(self._ask_cache, max_under_way=_CACHE_QUESTIONS, max_batch=_MAX_QUESTION)
        self._from_store = Batches(self._ask_store, max_under_way=_STORE_QUESTIONS, max_batch=_MAX_QUESTION)
        self._from_replica = Batches(
            self._ask_replica, max_under_way=_STORE_QUESTIONS, max_batch=_MAX_QUESTION
        )
        # With what the store said; None if only a replica was asked.
        self._missed: dict[Slug, Resolution | None] = {}
        self._missed_some = asyncio.Event()

    async def resolve(self, slug: Slug) -> T:
        """
        Return the answer for *slug*.

        Raises:
            Unavailable: no cached copy, and the store did not answer.
            Overloaded: it would have to be looked up.
        """
        entry = self._hot.get(slug)
        if entry is not None:
            return entry.answer
        look_up = self._under_way.get(slug)
        if look_up is None:
            # Waiting for what is under way costs nothing, so only who begins it has to be let in.
            look_up = self._under_way[slug] = _LookUp(self._entrance.enter(Kind.LOOK_UP))
            self._from_cache.add(slug)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        look_up.waiters.append(answer)
        limit = self._expiry.start()
        try:
            result = await answer
        except BaseException as error:
            if self._expiry.stop(limit) and isinstance(error, asyncio.CancelledError):
                raise Unavailable("the service", f"no answer within {self._limit_s:g} s") from None
            raise
        self._expiry.stop(limit)
        return result

    def is_known(self, slug: Slug) -> bool:
        """Would `resolve` answer *slug* without a look-up of its own?"""
        return slug in self._under_way or self._hot.get(slug) is not None

    def stale(self, slug: Slug) -> T | None:
        """Return what *slug* gave until recently, for when `resolve` fails; see `HotLinks.stale`."""
        entry = self._hot.stale(slug)
        if entry is None:
            return None
        self.stale_answers += 1
        return entry.answer

    async def run(self) -> None:
        """Report misses, so that the shared cache is filled, until cancelled."""
        while True:
            await self._missed_some.wait()
            await asyncio.sleep(_FILL_INTERVAL_S)
            self._missed_some.clear()
            missed, self._missed = self._missed, {}
            await self._fill(missed)

    async def aclose(self) -> None:
        """Look nothing up any more."""
        for batches in (self._from_cache, self._from_replica, self._from_store):
            await batches.aclose()

    async def _ask_cache(self, slugs: list[Slug]) -> None:
        try:
            held = await self._cache.get_many(slugs)
        except Unavailable:
            held = {}
        except Exception as error:  # noqa: BLE001 - a mistake of ours: whoever waits must hear of it
            self._fail(slugs, error)
            return
        further = self._from_store if self._replica is None else self._from_replica
        for slug in slugs:
            cached = held.get(slug)
            if cached is None or not self._answer(slug, cached, "cache"):
                further.add(slug)

    async def _ask_replica(self, slugs: list[Slug]) -> None:
        try:
            copies = await self._replica.resolve(slugs) if self._replica is not None else {}
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(slugs, error)
            return
        for slug in slugs:
            copy = copies.get(slug)
            if copy is None or not self._answer(slug, copy, "replica"):
                self._from_store.add(slug)
            else:
                self._note_missed(slug, None)

    async def _ask_store(self, slugs: list[Slug]) -> None:
        awaited = [slug for slug in slugs if self._is_awaited(slug)]
        if not awaited:
            return
        try:
            stored = await self._store.resolve(awaited)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(awaited, error)
            return
        for slug in awaited:
            resolution = stored.get(slug) or Resolution.absent(slug)
            look_up = self._under_way[slug]
            if not self._answer(slug, resolution, "store", is_last=look_up.is_second):
                # It changed while it was read, and somebody may have asked since.
                look_up.is_second = True
                self._from_store.add(slug)
            elif resolution.version > 0:
                # That a slug is unknown stays in this process: a scan must not fill the shared cache.
                self._note_missed(slug, resolution)

    def _is_awaited(self, slug: Slug) -> bool:
        """Does anybody still wait for *slug*? If not, it is not looked up any more."""
        if all(waiter.done() for waiter in self._under_way[slug].waiters):
            self._end(slug, succeeded=False)
            return False
        return True

    def _answer(self, slug: Slug, resolution: Resolution, source: str, *, is_last: bool = False) -> bool:
        """Answer all who wait for *slug*; False if *resolution* is old, and another place can be asked."""
        try:
            entry = self._hot.put(resolution) if is_last else self._hot.offer(resolution)
        except Exception as error:  # noqa: BLE001 - what is stored cannot be sent; others are not to blame
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

    def _end(self, slug: Slug, *, succeeded: bool) -> list[asyncio.Future[T]]:
        """The look-up of *slug* is over; return who waits for it."""
        look_up = self._under_way.pop(slug)
        self._entrance.leave(Kind.LOOK_UP, look_up.entered, succeeded=succeeded)
        self.look_ups["failed"] += not succeeded
        return look_up.waiters

    def _note_missed(self, slug: Slug, resolution: Resolution | None) -> None:
        # A flood of misses must not grow without bound; a slug left out is only missed again.
        if len(self._missed) < _MAX_FILL:
            self._missed[slug] = resolution
            self._missed_some.set()

    async def _fill(self, missed: Mapping[Slug, Resolution | None]) -> None:
        event = LinksMissed(tuple(missed))
        taken = await self._bus.publish([event])
        if not all(taken):
            # What was read from the store moments ago is what the worker would write.
            with contextlib.suppress(Unavailable):
                await self._cache.put([known for known in missed.values() if known is not None])
