"""
What this process has written to Redis lately, to write it again where another server takes over.

Replication is asynchronous: a replica that takes over lacks the last writes, as long as its lag, and those
that an old primary took after it was cut off. An entry that lacks a write would be old for a day.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.adapters.redis.node import Address
from app.domain.link import Resolution, Slug

KEEP_WRITES_S = 60.0
MAX_KEPT_WRITES = 4096

ServerOf = Callable[[Slug], Address | None]
"""Gives the server that holds a slug at present; None while unknown."""


@dataclass(frozen=True, slots=True)
class _Kept:
    resolution: Resolution
    server: Address | None
    at: float


class RecentWrites:
    """
    The newest write of each link, for `KEEP_WRITES_S`, and of the last `MAX_KEPT_WRITES` links.

    A write counts as that of the server that was asked to take it, whether it answered or not. Times are
    seconds on any monotonic clock.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Slug, _Kept] = OrderedDict()

    def keep(self, resolutions: Iterable[Resolution], now: float, server_of: ServerOf) -> None:
        """Keep what is about to be written. Absent links are left out: they are cached for seconds only."""
        for resolution in resolutions:
            held = self._kept.get(resolution.slug)
            if resolution.version and (held is None or resolution.replaces(held.resolution)):
                self._kept[resolution.slug] = _Kept(resolution, server_of(resolution.slug), now)
                self._kept.move_to_end(resolution.slug)
        while len(self._kept) > MAX_KEPT_WRITES:
            self._kept.popitem(last=False)
        self.expire(now)

    def expire(self, now: float) -> bool:
        """Drop what is too old; return whether anything is left."""
        while self._kept and next(iter(self._kept.values())).at < now - KEEP_WRITES_S:
            self._kept.popitem(last=False)
        return bool(self._kept)

    def forget(self, slugs: Iterable[Slug]) -> None:
        """Drop the writes of *slugs*."""
        for slug in slugs:
            self._kept.pop(slug, None)

    def elsewhere(self, now: float, server_of: ServerOf) -> list[Resolution]:
        """Return the writes that another server took than the one that holds their slugs at present."""
        self.expire(now)
        found = ((kept, server_of(slug)) for slug, kept in self._kept.items())
        return [kept.resolution for kept, server in found if server is not None and server != kept.server]

    def written(self, resolutions: Iterable[Resolution], server_of: ServerOf) -> None:
        """Note that the present servers have these, except those that have been replaced meanwhile."""
        for resolution in resolutions:
            held = self._kept.get(resolution.slug)
            if held is not None and held.resolution == resolution:
                self._kept[resolution.slug] = _Kept(resolution, server_of(resolution.slug), held.at)

    def all(self, now: float) -> list[Resolution]:
        """Return all that is kept."""
        self.expire(now)
        return [kept.resolution for kept in self._kept.values()]
