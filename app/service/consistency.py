"""Does the cache say what the store says? Looked at for all entries, or for each change a while later."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Link, Resolution, Slug
from app.ports import LinkCache, LinkStore

log = logging.getLogger(__name__)

WINDOWS_S = (1, 10, 60)
# Each change is looked at once in every window; with more changes, some are not followed.
_MAX_PER_S = 50
_TICK_S = 0.25
# A page of the cache is asked for by so many reads at once.
_CHUNK = 500


class Fault(StrEnum):
    """What is wrong with a cached entry: older or newer than the stored link, another one, or of none."""

    STALE = "stale"
    AHEAD = "ahead"
    DIFFERENT = "different"
    PHANTOM = "phantom"


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """One entry that is wrong. Versions as cached and as stored; 0 where there is no link."""

    slug: Slug
    fault: Fault
    cached: int
    stored: int


def fault_of(cached: Resolution | None, link: Link | None) -> Fault | None:
    """Compare what is cached with what is stored; None if that is right, or nothing is cached."""
    if cached is None:
        return None
    if link is None:
        return Fault.PHANTOM if cached.version > 0 else None
    if cached.version != link.version:
        return Fault.STALE if cached.version < link.version else Fault.AHEAD
    return None if cached == Resolution.of(link) else Fault.DIFFERENT


async def compare(store: LinkStore, cache: LinkCache, slugs: Sequence[Slug]) -> list[Inconsistency]:
    """
    Return what is wrong in the cache for *slugs*. A change under way shows as stale: look again.

    Raises:
        Unavailable: one of the two did not answer.
    """
    found = []
    for start in range(0, len(slugs), _CHUNK):
        chunk = slugs[start : start + _CHUNK]
        # The cache first: what is written in between makes it older than the store, never newer.
        cached = await cache.get_many(chunk)
        links = await store.get_many(chunk)
        for slug, held in cached.items():
            link = links.get(slug)
            fault = fault_of(held, link)
            if fault is not None:
                found.append(Inconsistency(slug, fault, held.version, link.version if link else 0))
    return found


@dataclass(slots=True)
class WindowCounts:
    """Changes that were looked at after one window, those that were wrong, and those nobody answered for."""

    checked: int = 0
    inconsistent: int = 0
    unanswered: int = 0


class ConsistencySampler:
    """
    Looks at each change again after 1, 10 and 60 seconds: is the cache at least as new by then?

    Follows at most 50 changes a second, so its memory is bounded by the longest window.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, store: LinkStore, cache: LinkCache, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._cache = cache
        self._monotonic = monotonic
        self._due: dict[int, deque[tuple[float, LinkChanged]]] = {window: deque() for window in WINDOWS_S}
        self._counts = {window: WindowCounts() for window in WINDOWS_S}
        self._second, self._followed = 0, 0

    def note(self, changes: Sequence[LinkChanged]) -> None:
        """These changes have been applied just now."""
        now = self._monotonic()
        if int(now) != self._second:
            self._second, self._followed = int(now), 0
        followed = changes[: _MAX_PER_S - self._followed]
        self._followed += len(followed)
        for window, due in self._due.items():
            due.extend((now + window, change) for change in followed)

    def snapshot(self) -> Mapping[int, WindowCounts]:
        """Return the counts since the start, by window in seconds."""
        return {
            window: WindowCounts(c.checked, c.inconsistent, c.unanswered)
            for window, c in self._counts.items()
        }

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Look at what is due, until cancelled."""
        while True:
            await sleep(_TICK_S)
            await self.look()

    async def look(self) -> None:
        """Look at all changes whose time has come."""
        now = self._monotonic()
        for window, due in self._due.items():
            changes = []
            while due and due[0][0] <= now:
                changes.append(due.popleft()[1])
            if changes:
                await self._check(window, changes)

    async def _check(self, window: int, changes: Sequence[LinkChanged]) -> None:
        counts = self._counts[window]
        wanted: dict[Slug, int] = {}
        for change in changes:
            wanted[change.slug] = max(change.version, wanted.get(change.slug, 0))
        try:
            found = await compare(self._store, self._cache, list(wanted))
        except Unavailable:
            counts.unanswered += len(wanted)
            return
        # A later change may be on its way: only what is older than this one is late.
        wrong = [one for one in found if one.fault is not Fault.STALE or one.cached < wanted[one.slug]]
        counts.checked += len(wanted)
        counts.inconsistent += len(wrong)
        for one in wrong:
            log.warning("%d s after a change the cache of %s is %s", window, one.slug, one.fault)
