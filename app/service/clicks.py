"""
Clicks: counted on the redirect path, carried to the store behind it.

A redirect adds one to a number in memory and does nothing else. About every second these numbers
become a batch with an id of its own, which goes to the bus; the worker adds it up in the store,
once for each id. What the bus does not take on is kept on this machine's disk, under the same
id, until it does. So the one thing that loses clicks is the sudden death of the process: those
since the last flush, and those of a flush under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from app.domain.events import ClicksCounted, Event
from app.domain.link import Slug
from app.ports import ClickSpool, EventBus, LinkStore
from app.wire import MAX_CLICKED_SLUGS_A_MESSAGE

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 1.0
# After an outage, for each flush: an hour's batches take three minutes.
_REPLAYED_A_FLUSH = 20
MAX_COUNTED_SLUGS = 100_000


class ClickCounter:
    """
    Clicks by slug since they were last taken.

    Bounded by slugs: from `MAX_CLICKED_SLUGS_A_MESSAGE` on `is_full` is set; beyond
    `MAX_COUNTED_SLUGS`, which only a disk that hangs can cause, clicks are dropped, and counted in
    `dropped`.
    """

    def __init__(self) -> None:
        self._counts: dict[Slug, int] = {}
        self.is_full = asyncio.Event()
        self.dropped = 0

    def count(self, slug: Slug, clicks: int = 1) -> None:
        """Add *clicks* of *slug*. No I/O, no waiting."""
        before = self._counts.get(slug, 0)
        if before or len(self._counts) < MAX_COUNTED_SLUGS:
            self._counts[slug] = before + clicks
            if len(self._counts) >= MAX_CLICKED_SLUGS_A_MESSAGE:
                self.is_full.set()
        else:
            self.dropped += clicks

    def take(self) -> list[tuple[Slug, int]]:
        """Return what was counted, and begin anew."""
        taken, self._counts = list(self._counts.items()), {}
        self.is_full.clear()
        return taken


class Clicks:
    """
    Carries the clicks of one gateway process to the bus, or to the disk. Belongs to one event loop.

    Args:
        harvest: makes the first cache report its clicks to *counter*.
        clock: the present time in UTC; a click counts in the hour in which it is flushed.
        new_id: makes 32 hexadecimal digits that were never made before.
    """

    def __init__(
        self,
        counter: ClickCounter,
        harvest: Callable[[], None],
        bus: EventBus,
        spool: ClickSpool,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._counter = counter
        self._harvest = harvest
        self._bus = bus
        self._spool = spool
        self._clock = clock
        self._new_id = new_id
        self._pending: deque[ClicksCounted] = deque()
        self._confirming = True
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many clicks neither the bus nor the disk took, since the start."""
        return self._dropped + self._counter.dropped

    async def run(self) -> None:
        """Flush every second, sooner if there are many slugs, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_INTERVAL_S):
                    await self._counter.is_full.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """
        Bring what was counted to the bus or the disk, and what is on the disk to the bus.

        Takes little longer than two publishes. Cancelled, nothing is lost: the next flush goes on.
        """
        self._cut()
        while self._pending:
            counted = self._pending[0]
            # While the broker does not confirm, the disk comes first: a publish that fails may
            # take its time, and all of that time would be lost with the process.
            if not (self._confirming and await self._publish([counted])):
                await self._keep(counted)
            self._pending.popleft()
        await self._replay()

    def _cut(self) -> None:
        self._harvest()
        counted = self._counter.take()
        hour = self._clock().replace(minute=0, second=0, microsecond=0)
        for start in range(0, len(counted), MAX_CLICKED_SLUGS_A_MESSAGE):
            part = counted[start : start + MAX_CLICKED_SLUGS_A_MESSAGE]
            self._pending.append(ClicksCounted(self._new_id(), hour, dict(part)))

    async def _publish(self, batches: Sequence[ClicksCounted]) -> int:
        """Return how many of *batches* the bus has taken on, from the first one without a gap."""
        taken = list(await self._bus.publish(batches))
        confirmed = [*taken, False].index(False)
        if (confirmed == len(batches)) != self._confirming:
            self._confirming = not self._confirming
            log.warning("the broker %s clicks", "takes" if self._confirming else "does not take")
        return confirmed

    async def _keep(self, counted: ClicksCounted) -> None:
        if not await self._spool.append(counted):
            clicks = sum(counted.clicks.values())
            self._dropped += clicks
            log.error("%d clicks are lost: neither the bus nor the disk takes them", clicks)

    async def _replay(self) -> None:
        kept = await self._spool.oldest(_REPLAYED_A_FLUSH)
        if kept:
            await self._spool.drop(await self._publish(kept))
        else:
            # Nobody else would find out that the broker is back.
            self._confirming = True


class ClickFolder:
    """Adds batches of clicks up in the store; what the worker does with them."""

    def __init__(self, store: LinkStore, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def apply(self, events: Sequence[Event]) -> None:
        """
        Add every batch among *events*, in a transaction for each.

        Raises:
            Unavailable: nothing is counted twice by doing it again.
        """
        for event in events:
            if isinstance(event, ClicksCounted):
                await self._store.fold_clicks(event, now=self._clock())
