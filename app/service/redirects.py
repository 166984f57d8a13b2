"""
Slug → answer, by way of ever slower places: this process, the shared cache, the store.

The first caller who misses asks on behalf of all who miss the same slug meanwhile; if that
caller goes away, the others still get their answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Generic, TypeVar

from app.domain.errors import Unavailable
from app.domain.events import LinksMissed
from app.domain.link import Resolution, Slug
from app.ports import EventBus, LinkCache, LinkStore
from app.resilience.admission import Kind
from app.service.admission import Entrance
from app.service.hot_links import HotLinks
from app.service.single_flight import SingleFlight

T = TypeVar("T")

# Slugs missed within this time are reported together.
_FILL_INTERVAL_S = 0.01
_MAX_FILL = 1000


class Redirects(Generic[T]):
    """
    Resolves slugs to answers of type T (see `HotLinks`), at most two seconds stale.

    404 is decided by the store alone: a cache that knows nothing, or is away, proves nothing.
    """

    def __init__(
        self, hot: HotLinks[T], cache: LinkCache, store: LinkStore, bus: EventBus, entrance: Entrance
    ) -> None:
        self._hot = hot
        self._cache = cache
        self._store = store
        self._bus = bus
        self._entrance = entrance
        # How often who knew, and how often nobody had to.
        self.look_ups = {"cache": 0, "store": 0, "failed": 0}
        self.stale_answers = 0
        self._loading: SingleFlight[Slug, T] = SingleFlight()
        self._missed: dict[Slug, Resolution] = {}
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
        # Waiting for what is under way costs nothing, so only who begins it has to be let in.
        entered = 0.0 if slug in self._loading else self._entrance.enter(Kind.LOOK_UP)
        return await self._loading.do(slug, lambda: self._load_admitted(slug, entered))

    def is_known(self, slug: Slug) -> bool:
        """Would `resolve` answer *slug* without a look-up of its own?"""
        return slug in self._loading or self._hot.get(slug) is not None

    def stale(self, slug: Slug) -> T | None:
        """Return what *slug* gave until recently, for when `resolve` fails; see `HotLinks.stale`."""
        entry = self._hot.stale(slug)
        if entry is None:
            return None
        self.stale_answers += 1
        return entry.answer

    async def _load_admitted(self, slug: Slug, entered: float) -> T:
        succeeded = False
        try:
            answer = await self._load(slug)
            succeeded = True
        finally:
            self.look_ups["failed"] += not succeeded
            self._entrance.leave(Kind.LOOK_UP, entered, succeeded=succeeded)
        return answer

    async def _load(self, slug: Slug) -> T:
        with contextlib.suppress(Unavailable):
            cached = await self._cache.get(slug)
            if cached is not None and self._hot.accepts(cached):
                self.look_ups["cache"] += 1
                return self._hot.put(cached).answer
        resolution = await self._read(slug)
        if not self._hot.accepts(resolution):
            # It changed while it was read, and somebody may have asked since.
            resolution = await self._read(slug)
        # A flood of misses must not grow without bound; a slug left out is only missed again.
        # That a slug is unknown stays in this process: a scan must not fill the shared cache.
        if resolution.version > 0 and len(self._missed) < _MAX_FILL:
            self._missed[slug] = resolution
            self._missed_some.set()
        self.look_ups["store"] += 1
        return self._hot.put(resolution).answer

    async def _read(self, slug: Slug) -> Resolution:
        link = await self._store.get(slug)
        return Resolution.of(link) if link is not None else Resolution.absent(slug)

    async def run(self) -> None:
        """Report misses, so that the shared cache is filled, until cancelled."""
        while True:
            await self._missed_some.wait()
            await asyncio.sleep(_FILL_INTERVAL_S)
            self._missed_some.clear()
            missed, self._missed = self._missed, {}
            await self._fill(list(missed.values()))

    async def _fill(self, missed: Sequence[Resolution]) -> None:
        event = LinksMissed(tuple(resolution.slug for resolution in missed))
        taken = await self._bus.publish([event])
        if not all(taken):
            # What was read from the store moments ago is what the worker would write.
            with contextlib.suppress(Unavailable):
                await self._cache.put(missed)
