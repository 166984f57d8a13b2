"""`LinkCache` in this process: what the embedded service uses, and what the tests do."""

from __future__ import annotations

import heapq
import random as random_module
import time
from collections.abc import Callable, Mapping, Sequence

from app.adapters.cache_ttl import time_to_live_s
from app.domain.link import Resolution, Slug
from app.ports import CachePage


class MemoryCache:
    """
    A bounded dictionary in which every entry has an end.

    A full cache drops first what would expire soonest: what has expired already, then the
    absent slugs (so a scanner pushes out its own entries), then the oldest links.
    """

    def __init__(
        self,
        *,
        max_entries: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Make an empty cache.

        Args:
            max_entries: the most it holds.
            clock: seconds that only grow; where they start does not matter.
            random: gives floats in [0, 1), for the jitter of the times to live.
        """
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, is {max_entries}")
        self._max_entries = max_entries
        self._clock = clock
        self._random = random
        self._entries: dict[Slug, tuple[float, Resolution]] = {}
        # (end, slug), soonest first. An entry that was overwritten leaves its old end behind;
        # whoever pops compares with `_entries`.
        self._ends: list[tuple[float, Slug]] = []

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """See `LinkCache.get_many`."""
        now = self._clock()
        return {slug: held for slug in slugs if (held := self._held(slug, now)) is not None}

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """See `LinkCache.put`. Awaits nothing, so nobody sees half of it."""
        now = self._clock()
        written = 0
        for resolution in resolutions:
            held = self._held(resolution.slug, now)
            if held is not None and held.version >= resolution.version:
                continue
            end = now + time_to_live_s(resolution, self._random)
            self._entries[resolution.slug] = (end, resolution)
            heapq.heappush(self._ends, (end, resolution.slug))
            written += 1
        self._shrink()
        return written

    async def scan(self, cursor: int) -> CachePage:
        """See `LinkCache.scan`. All of it is one page."""
        now = self._clock()
        slugs = tuple(slug for slug in list(self._entries) if self._held(slug, now) is not None)
        return CachePage(slugs, 0, len(slugs))

    async def forget(self, slugs: Sequence[Slug]) -> None:
        """See `LinkCache.forget`."""
        for slug in slugs:
            self._entries.pop(slug, None)

    async def ping(self) -> None:
        """See `LinkCache.ping`."""

    async def aclose(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._ends.clear()

    def __len__(self) -> int:
        """How many entries are held, expired ones included."""
        return len(self._entries)

    def _held(self, slug: Slug, now: float) -> Resolution | None:
        entry = self._entries.get(slug)
        if entry is None:
            return None
        end, resolution = entry
        if end <= now:
            del self._entries[slug]
            return None
        return resolution

    def _shrink(self) -> None:
        while len(self._entries) > self._max_entries:
            end, slug = heapq.heappop(self._ends)
            if slug in self._entries and self._entries[slug][0] == end:
                del self._entries[slug]
        # Links that change often leave many old ends; without this they would pile up.
        if len(self._ends) > 2 * self._max_entries:
            self._ends = [(end, slug) for slug, (end, _) in self._entries.items()]
            heapq.heapify(self._ends)
