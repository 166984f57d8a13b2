"""`LinkCache` in this process, for embedded mode and for tests."""

from __future__ import annotations

import heapq
import random as random_module
import time
from collections.abc import Callable, Mapping, Sequence

from app.domain.cache_ttl import is_large, time_to_live_s
from app.domain.link import Resolution, Slug
from app.ports import CachePage

# Large entries that are held, with targets of 8 KiB each at most.
MAX_LONG = 8_192


class MemoryCache:
    """
    A bounded dictionary in which every entry has a time to live.

    A full cache evicts the entry that expires soonest: expired ones first, then absent slugs (so
    a scan for slugs evicts its own entries), then the oldest links. Of links with long targets it
    holds `MAX_LONG`.
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
            max_entries: the most that are held.
            clock: monotonic seconds.
            random: returns floats in [0, 1), for the jitter of the times to live.
        """
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, is {max_entries}")
        self._max_entries = max_entries
        self._clock = clock
        self._random = random
        self._entries: dict[Slug, tuple[float, Resolution]] = {}
        # A heap of (expiry, slug). An overwritten entry leaves its old expiry behind, so eviction
        # compares with `_entries`.
        self._expiries: list[tuple[float, Slug]] = []
        self._long: dict[Slug, None] = {}

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        now = self._clock()
        return {slug: held for slug in slugs if (held := self._held(slug, now)) is not None}

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """Atomic: it awaits nothing."""
        now = self._clock()
        written = 0
        for resolution in resolutions:
            held = self._held(resolution.slug, now)
            if held is not None and not resolution.replaces(held):
                continue
            expiry = now + time_to_live_s(resolution, self._random)
            self._entries[resolution.slug] = (expiry, resolution)
            heapq.heappush(self._expiries, (expiry, resolution.slug))
            if is_large(resolution):
                self._limit_long(resolution.slug)
            written += 1
        self._evict()
        return written

    async def scan(self, cursor: int) -> CachePage:
        """One page holds all slugs."""
        now = self._clock()
        slugs = tuple(slug for slug in list(self._entries) if self._held(slug, now) is not None)
        return CachePage(slugs, 0, len(slugs))

    async def forget(self, slugs: Sequence[Slug]) -> None:
        for slug in slugs:
            self._entries.pop(slug, None)

    async def ping(self) -> None:
        """Succeeds always."""

    async def aclose(self) -> None:
        """Drop every entry."""
        self._entries.clear()
        self._expiries.clear()
        self._long.clear()

    def __len__(self) -> int:
        """How many entries are held, expired ones included."""
        return len(self._entries)

    def _held(self, slug: Slug, now: float) -> Resolution | None:
        entry = self._entries.get(slug)
        if entry is None:
            return None
        expiry, resolution = entry
        if expiry <= now:
            del self._entries[slug]
            return None
        return resolution

    def _limit_long(self, slug: Slug) -> None:
        self._long.pop(slug, None)
        self._long[slug] = None
        if len(self._long) > MAX_LONG:
            oldest = next(iter(self._long))
            del self._long[oldest]
            self._entries.pop(oldest, None)

    def _evict(self) -> None:
        while len(self._entries) > self._max_entries:
            expiry, slug = heapq.heappop(self._expiries)
            if slug in self._entries and self._entries[slug][0] == expiry:
                del self._entries[slug]
        # Links that change often leave many old expiries in the heap; this bounds it.
        if len(self._expiries) > 2 * self._max_entries:
            self._expiries = [(expiry, slug) for slug, (expiry, _) in self._entries.items()]
            heapq.heapify(self._expiries)
