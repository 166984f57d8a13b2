"""Samples changed links: some time after the change, is the shared cache consistent with the store?"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Slug
from app.ports import LinkCache, LinkStore
from app.service.consistency import Fault, compare

log = logging.getLogger(__name__)

WINDOWS_S = (1, 10, 60)
# Each sampled change is checked once per window; changes beyond this rate are not sampled.
_MAX_PER_S = 50
_TICK_S = 0.25


@dataclass(slots=True)
class WindowCounts:
    """Changes checked after one window, those found inconsistent, and those that could not be checked."""

    checked: int = 0
    inconsistent: int = 0
    unanswered: int = 0


class ConsistencySampler:
    """
    Checks each sampled change after 1, 10 and 60 seconds: the cache must be at least as new by then.

    Samples at most 50 changes a second, so the longest window bounds its memory.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, store: LinkStore, cache: LinkCache, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._cache = cache
        self._monotonic = monotonic
        self._due: dict[int, deque[tuple[float, LinkChanged]]] = {window: deque() for window in WINDOWS_S}
        self._counts = {window: WindowCounts() for window in WINDOWS_S}
        self._second, self._sampled = 0, 0

    def note(self, changes: Sequence[LinkChanged]) -> None:
        """Sample *changes*, which have just been applied."""
        now = self._monotonic()
        if int(now) != self._second:
            self._second, self._sampled = int(now), 0
        sampled = changes[: _MAX_PER_S - self._sampled]
        self._sampled += len(sampled)
        for window, due in self._due.items():
            due.extend((now + window, change) for change in sampled)

    def snapshot(self) -> Mapping[int, WindowCounts]:
        """Return the counts since the start, by window in seconds."""
        return {window: replace(counts) for window, counts in self._counts.items()}

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Check changes when they are due, until cancelled."""
        while True:
            await sleep(_TICK_S)
            await self.check_due()

    async def check_due(self) -> None:
        """Check every change that is due."""
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
        except Exception:
            # A stored link that cannot be read fails its visits, too: no reason to end the process.
            log.exception("cannot compare the cache with the store: %d changes stay unchecked", len(wanted))
            counts.unanswered += len(wanted)
            return
        # A later change may still be in flight: only a copy older than this change is inconsistent.
        wrong = [one for one in found if one.fault is not Fault.STALE or one.cached < wanted[one.slug]]
        counts.checked += len(wanted)
        counts.inconsistent += len(wrong)
        for one in wrong:
            log.warning(
                "cached copy of %s is %s %d s after a change: cached version %d, stored version %d",
                one.slug,
                one.fault,
                window,
                one.cached,
                one.stored,
            )
