"""
The first cache: a dictionary in the process, asked before anything else.

An entry lives two seconds at most, which bounds what a lost invalidation can cost. An
invalidation leaves a floor behind: a read that was under way when the link changed comes
back older than the floor and is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.domain.events import LinkChanged
from app.domain.link import Resolution

TTL_S = 2.0
# Longer than any read can be under way.
FLOOR_TTL_S = 10.0
MAX_ENTRIES = 65_536

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HotLink(Generic[T]):
    """A resolution, the answer made from it, and until when both are good (monotonic seconds)."""

    resolution: Resolution
    answer: T
    fresh_until: float


class HotLinks(Generic[T]):
    """
    At most `MAX_ENTRIES` answers by slug; the oldest leaves first.

    Listens to invalidations (`app.ports.InvalidationListener`). Belongs to one event loop.

    Args:
        render: makes the answer of a resolution, at a time in unix seconds.
        monotonic: seconds that never go back.
        wall: unix seconds.
    """

    def __init__(
        self,
        render: Callable[[Resolution, float], T],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._render = render
        self._monotonic = monotonic
        self._wall = wall
        self._entries: OrderedDict[str, HotLink[T]] = OrderedDict()
        self._floors: OrderedDict[str, tuple[int, float]] = OrderedDict()
        # The redirect lane asks this for every request: bound once, called without a frame.
        self.peek = self._entries.get

    def get(self, slug: str) -> HotLink[T] | None:
        """Return what is known of *slug* and still fresh."""
        entry = self._entries.get(slug)
        return entry if entry is not None and self._monotonic() < entry.fresh_until else None

    def accepts(self, resolution: Resolution) -> bool:
        """Is *resolution* at least as new as every change heard of?"""
        floor = self._floors.get(resolution.slug)
        return floor is None or resolution.version >= floor[0] or self._monotonic() >= floor[1]

    def put(self, resolution: Resolution) -> HotLink[T]:
        """Keep *resolution*, unless it is known to be old, and return its answer."""
        now, wall = self._monotonic(), self._wall()
        entry = HotLink(resolution, self._render(resolution, wall), now + _constant_for(resolution, wall))
        if self.accepts(resolution):
            self._entries[resolution.slug] = entry
            self._entries.move_to_end(resolution.slug)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
            # A slower source may know less: what was newer once is not forgotten for it.
            self._raise_floor(resolution.slug, resolution.version, now + FLOOR_TTL_S)
        return entry

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        """Drop what is older than *changes*, and refuse it for a while."""
        until = self._monotonic() + FLOOR_TTL_S
        for slug, version in ((change.slug, change.version) for change in changes):
            entry = self._entries.get(slug)
            if entry is not None and entry.resolution.version < version:
                del self._entries[slug]
            self._raise_floor(slug, version, until)

    def on_gap(self) -> None:
        """Changes may have been missed: forget everything."""
        self._entries.clear()

    def _raise_floor(self, slug: str, version: int, until: float) -> None:
        floor = self._floors.get(slug)
        self._floors[slug] = (max(version, floor[0]) if floor else version, until)
        self._floors.move_to_end(slug)
        if len(self._floors) > MAX_ENTRIES:
            self._floors.popitem(last=False)


def _constant_for(resolution: Resolution, wall: float) -> float:
    """How long the answer stays what it is: two seconds, or less if the link's own time comes first."""
    edges = [
        edge - wall
        for edge in (resolution.valid_from, resolution.expires_at)
        if edge is not None and edge > wall
    ]
    return min([TTL_S, *edges])
