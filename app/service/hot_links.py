"""
The first cache: a dictionary in the process, asked before anything else.

An entry is fresh for two seconds at most, which bounds what a lost invalidation can cost. An
invalidation leaves a floor behind: what is older than it is not kept, be it a read that was
under way when the link changed, or the copy of a shared cache that could not be written. After
those two seconds an entry is kept as well, for when nobody can be asked (see `HotLinks.stale`).
"""

from __future__ import annotations

import math
import random as random_module
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug, State

TTL_S = 2.0
# Entries that were loaded together must not expire together: up to this part less.
JITTER = 0.1
# What is stale may be served for this long after it was read, if store and cache are both away.
# A change needs the store, and invalidations arrive all the while: so it matters only to a
# process that is cut off from everything while others are not, and bounds what that can cost.
STALE_S = 300.0
# Longer than any read can be under way, and than most outages of the shared cache: it comes back
# with the copies that it had, and is asked before the worker has brought them up to date.
FLOOR_TTL_S = STALE_S
MAX_ENTRIES = 65_536
# Of these, slugs that do not exist: a scan pushes out its own guesses, and no link.
MAX_ABSENT = 8_192

T = TypeVar("T")


# Up to 65,536 of them live as long as the process does something: the collector of cycles, which
# they cannot be part of, need not walk through them (`gc=False`).
class HotLink(msgspec.Struct, Generic[T], gc=False):
    """
    A resolution, the answer made from it, and until when both are good (monotonic seconds).

    From `fresh_until` to `stale_until` they are better than nothing, and only that. Until `free_until`
    the answer may be given as it is: never, if each redirect of the link needs a visit.

    Whoever gives the answer to a visitor adds one to `clicks`: that is a quarter of what a
    dictionary by slug would cost. See `HotLinks.harvest`.
    """

    resolution: Resolution
    answer: T
    fresh_until: float
    stale_until: float
    free_until: float
    clicks: int = 0


def _ignore(_slug: Slug, _clicks: int) -> None:
    """Count nothing."""


class HotLinks(Generic[T]):
    """
    At most `MAX_ENTRIES` answers by slug; the oldest leaves first.

    Listens to invalidations (`app.ports.InvalidationListener`). Belongs to one event loop.

    Args:
        render: makes the answer of a resolution, at a time in unix seconds.
        monotonic: seconds that never go back.
        wall: unix seconds.
        random: gives floats in [0, 1), for the jitter of the times to live.
        clicked: is told how often the answer of a slug was given.
    """

    def __init__(
        self,
        render: Callable[[Resolution, float], T],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float] = random_module.random,
        clicked: Callable[[Slug, int], None] = _ignore,
    ) -> None:
        self._render = render
        self._monotonic = monotonic
        self._wall = wall
        self._random = random
        self._clicked = clicked
        # By slug, whatever may have clicks: entries that are fresh, or were at the last harvest.
        self._recent: dict[Slug, HotLink[T]] = {}
        self._entries: OrderedDict[str, HotLink[T]] = OrderedDict()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._floors: OrderedDict[str, tuple[int, float]] = OrderedDict()
        # The redirect lane asks this for every request: bound once, called without a frame.
        self.peek = self._entries.get

    def get(self, slug: str) -> HotLink[T] | None:
        """Return what is known of *slug* and still fresh."""
        entry = self._entries.get(slug)
        return entry if entry is not None and self._monotonic() < entry.fresh_until else None

    def stale(self, slug: str) -> HotLink[T] | None:
        """
        Return what was known of *slug* until recently, and let it be fresh once more.

        For when nobody who knows better can be asked. Only a link that is live by its own
        times, no older than any change heard of, and read less than `STALE_S` ago.
        """
        entry = self._entries.get(slug)
        now, wall = self._monotonic(), self._wall()
        if entry is None or now >= entry.stale_until or entry.resolution.state(wall) is not State.LIVE:
            return None
        return self._keep(entry.resolution, now, wall, stale_until=entry.stale_until)

    def accepts(self, resolution: Resolution) -> bool:
        """Is *resolution* at least as new as every change heard of, and what is held?"""
        now = self._monotonic()
        entry = self._entries.get(resolution.slug)
        # Its floor may have been pushed out by those of others.
        if entry is not None and now < entry.stale_until and entry.resolution.version > resolution.version:
            return False
        floor = self._floors.get(resolution.slug)
        return floor is None or resolution.version >= floor[0] or now >= floor[1]

    def offer(self, resolution: Resolution) -> HotLink[T] | None:
        """Keep *resolution* and return its answer; None if it is known to be old."""
        if not self.accepts(resolution):
            return None
        now = self._monotonic()
        # A slower source may know less: what was newer once is not forgotten for it.
        if resolution.version > 0:
            self._raise_floor(resolution.slug, resolution.version, now + FLOOR_TTL_S)
        else:
            self._limit_absent(resolution.slug)
        return self._keep(resolution, now, self._wall(), stale_until=now + STALE_S)

    def put(self, resolution: Resolution) -> HotLink[T]:
        """Keep *resolution*, unless it is known to be old, and return its answer in any case."""
        entry = self.offer(resolution)
        if entry is not None:
            return entry
        now = self._monotonic()
        return self._entry(resolution, now, self._wall(), stale_until=now)

    def harvest(self) -> None:
        """Report the clicks since the last harvest; call it about every second."""
        now = self._monotonic()
        for slug, entry in self._recent.items():
            if entry.clicks:
                self._clicked(slug, entry.clicks)
                entry.clicks = 0
        self._recent = {slug: entry for slug, entry in self._recent.items() if now < entry.fresh_until}

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        """Drop what is older than *changes*, and refuse it for a while."""
        until = self._monotonic() + FLOOR_TTL_S
        for slug, version in ((change.slug, change.version) for change in changes):
            entry = self._entries.get(slug)
            if entry is not None and entry.resolution.version < version:
                del self._entries[slug]
            self._raise_floor(slug, version, until)

    def replace(self, changed: Sequence[Resolution]) -> None:
        """
        Take over what this process has committed: what was held is replaced, what was not only gets a floor.

        Dropped as others drop it, it could not be answered until shared cache or store say what it is now.
        """
        held = [resolution for resolution in changed if resolution.slug in self._entries]
        self.on_changes([LinkChanged(resolution.slug, resolution.version) for resolution in changed])
        for resolution in held:
            # What cannot be sent is found out by whoever asks for it.
            with suppress(Exception):
                self.offer(resolution)

    def on_gap(self) -> None:
        """Changes may have been missed: forget everything."""
        self._entries.clear()

    def __len__(self) -> int:
        """How many entries are held, stale ones included."""
        return len(self._entries)

    def _keep(self, resolution: Resolution, now: float, wall: float, *, stale_until: float) -> HotLink[T]:
        entry = self._entry(resolution, now, wall, stale_until=stale_until)
        before = self._recent.get(resolution.slug)
        if before is not None:
            entry.clicks = before.clicks
        elif len(self._recent) >= MAX_ENTRIES:
            self.harvest()
        self._recent[resolution.slug] = entry
        self._entries[resolution.slug] = entry
        self._entries.move_to_end(resolution.slug)
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
        return entry

    def _entry(self, resolution: Resolution, now: float, wall: float, *, stale_until: float) -> HotLink[T]:
        ttl_s = TTL_S * (1 - JITTER * self._random())
        if resolution.valid_from is not None or resolution.expires_at is not None:
            ttl_s = min(ttl_s, _constant_for(resolution, wall))
        fresh_until = now + ttl_s
        free_until = -math.inf if resolution.metered else fresh_until
        return HotLink(resolution, self._render(resolution, wall), fresh_until, stale_until, free_until)

    def _limit_absent(self, slug: str) -> None:
        self._absent[slug] = None
        self._absent.move_to_end(slug)
        if len(self._absent) > MAX_ABSENT:
            oldest, _ = self._absent.popitem(last=False)
            entry = self._entries.get(oldest)
            if entry is not None and entry.resolution.version == 0:
                del self._entries[oldest]

    def _raise_floor(self, slug: str, version: int, until: float) -> None:
        floor = self._floors.get(slug)
        self._floors[slug] = (max(version, floor[0]) if floor else version, until)
        self._floors.move_to_end(slug)
        if len(self._floors) > MAX_ENTRIES:
            self._floors.popitem(last=False)


def _constant_for(resolution: Resolution, wall: float) -> float:
    """How many seconds the answer stays what it is: until the link's own time comes."""
    edges = [
        edge - wall
        for edge in (resolution.valid_from, resolution.expires_at)
        if edge is not None and edge > wall
    ]
    return min(edges, default=math.inf)
