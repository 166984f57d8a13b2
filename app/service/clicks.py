"""
Click counting: counted on the redirect path, published behind it, with what visits looked like.

A redirect only increments a number in memory. About every second these numbers become a batch with
a unique id, which is published to the bus; a worker adds it to the totals in the store, once per id.
A batch that the bus does not confirm is kept on the local disk under the same id, and published
later. So only the sudden death of the process loses clicks: those since the last flush, and those
of a flush in progress.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import assert_never

from app.domain.events import ClicksCounted, Counted, VisitsDescribed
from app.domain.link import Slug
from app.ports import ClickSpool, EventBus
from app.wire import MAX_CLICKED_SLUGS_A_MESSAGE

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 1.0
# Batches per flush that are published from the disk: an outage of an hour is made up in three minutes.
_REPLAYED_A_FLUSH = 20
MAX_COUNTED_SLUGS = 100_000


class ClickCounter:
    """
    Counts clicks by slug, until they are taken.

    Bounded by slugs: from `MAX_CLICKED_SLUGS_A_MESSAGE` on, `is_full` is set. Beyond
    `MAX_COUNTED_SLUGS`, which only a hanging disk can cause, clicks are dropped and counted in
    `dropped`.
    """

    def __init__(self) -> None:
        self._counts: dict[Slug, int] = {}
        self.is_full = asyncio.Event()
        self.dropped = 0

    def count(self, slug: Slug, clicks: int = 1) -> None:
        """Add *clicks* of *slug*. Does no I/O."""
        before = self._counts.get(slug, 0)
        if before or len(self._counts) < MAX_COUNTED_SLUGS:
            self._counts[slug] = before + clicks
            if len(self._counts) >= MAX_CLICKED_SLUGS_A_MESSAGE:
                self.is_full.set()
        else:
            self.dropped += clicks

    def __len__(self) -> int:
        """Return how many clicks are counted."""
        return sum(self._counts.values())

    def take(self) -> list[tuple[Slug, int]]:
        """Return the counts and reset them."""
        taken, self._counts = list(self._counts.items()), {}
        self.is_full.clear()
        return taken


class ClickPublisher:
    """
    Publishes the clicks of one gateway process, or keeps them on disk. Belongs to one event loop.

    Args:
        collect: makes the L1 cache report its clicks to *counter*.
        clock: the present time in UTC; a click counts in the hour in which it is flushed.
        new_id: makes 32 unique hexadecimal digits.
        described: returns what visits looked like since its last call.
    """

    def __init__(
        self,
        counter: ClickCounter,
        collect: Callable[[], None],
        bus: EventBus,
        spool: ClickSpool,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        described: Callable[[], Awaitable[Sequence[VisitsDescribed]]] | None = None,
    ) -> None:
        self._counter = counter
        self._collect = collect
        self._bus = bus
        self._spool = spool
        self._clock = clock
        self._new_id = new_id
        self._described = described
        self._pending: deque[Counted] = deque()
        self._confirming = True
        self._dropped = 0
        # Clicks since the start, in batches that the bus confirmed, and that were kept on disk first.
        self.published = self.spilled = 0

    @property
    def buffered(self) -> int:
        """How many clicks are in memory; those that the L1 cache still counts are not included."""
        return len(self._counter) + _clicks(self._pending)

    @property
    def spooled_bytes(self) -> int:
        """The size of the clicks on disk."""
        return self._spool.kept_bytes

    @property
    def dropped(self) -> int:
        """How many clicks were lost since the start: neither bus nor disk accepted them."""
        return self._dropped + self._counter.dropped

    async def run(self) -> None:
        """Flush every second, or sooner when the counter is full, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_INTERVAL_S):
                    await self._counter.is_full.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """
        Publish what was counted, or keep it on disk; then publish batches from the disk.

        Takes little longer than two publishes. A cancelled flush loses nothing: the next continues.
        """
        self._cut()
        await self._send_pending()
        if self._described is not None:
            # After the clicks: reading headers may take a while.
            self._pending.extend(await self._described())
            await self._send_pending()
        await self._replay()

    async def _send_pending(self) -> None:
        while self._pending:
            counted = self._pending[0]
            # While the broker does not confirm, write to disk first: a failing publish may take
            # seconds, and a crash in that time would lose the batch.
            if not (self._confirming and await self._publish([counted])):
                await self._keep(counted)
            self._pending.popleft()

    async def aclose(self) -> None:
        """Flush for the last time."""
        await self.flush()

    def _cut(self) -> None:
        self._collect()
        counted = self._counter.take()
        hour = self._clock().replace(minute=0, second=0, microsecond=0)
        for start in range(0, len(counted), MAX_CLICKED_SLUGS_A_MESSAGE):
            part = counted[start : start + MAX_CLICKED_SLUGS_A_MESSAGE]
            self._pending.append(ClicksCounted(self._new_id(), hour, dict(part)))

    async def _publish(self, batches: Sequence[Counted]) -> int:
        """Return how many of *batches* the bus confirmed, up to the first that it did not."""
        taken = list(await self._bus.publish(batches))
        confirmed = [*taken, False].index(False)
        self.published += _clicks(batches[:confirmed])
        if (confirmed == len(batches)) != self._confirming:
            self._confirming = not self._confirming
            if self._confirming:
                log.warning("click publisher: the broker confirms again")
            else:
                log.warning(
                    "click publisher: the broker does not confirm %d of %d batches; kept on disk",
                    len(batches) - confirmed,
                    len(batches),
                )
        return confirmed

    async def _keep(self, counted: Counted) -> None:
        clicks = _clicks([counted])
        if await self._spool.append(counted):
            self.spilled += clicks
        elif isinstance(counted, VisitsDescribed):
            log.error("click publisher: what %d links' visits looked like is lost", len(counted.visits))
        else:
            self._dropped += clicks
            log.error("click publisher: %d clicks lost, as neither bus nor disk accepts them", clicks)

    async def _replay(self) -> None:
        kept = await self._spool.oldest(_REPLAYED_A_FLUSH)
        if kept:
            await self._spool.drop(await self._publish(kept))
        else:
            # With nothing on disk to probe the broker with, the next flush tries it.
            self._confirming = True


def _clicks(batches: Iterable[Counted]) -> int:
    """Return the clicks in *batches*; descriptions are of clicks that others have counted."""
    clicks = 0
    for batch in batches:
        match batch:
            case ClicksCounted():
                clicks += sum(batch.clicks.values())
            case VisitsDescribed():
                pass
            case _:
                assert_never(batch)
    return clicks
