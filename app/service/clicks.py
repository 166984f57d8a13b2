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
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from app.domain.events import ClicksCounted
from app.domain.link import Slug
from app.ports import ClickSpool, EventBus
from app.service.sending import BatchSender, visits_of
from app.wire import MAX_CLICKED_SLUGS_A_MESSAGE

FLUSH_INTERVAL_S = 1.0
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


class Described(Protocol):
    """What visits looked like, on its own way to the bus; see `app.service.visit_publisher`."""

    @property
    def is_behind(self) -> bool:
        """Does something that was taken wait to be described?"""
        ...

    def cut(self, now: datetime) -> None:
        """Take what was noted since the last call as visits of *now*."""
        ...

    async def flush(self) -> None:
        """Publish what was taken, or keep it on disk. A cancelled flush loses nothing."""
        ...


class ClickPublisher:
    """
    Publishes the clicks of one gateway process, or keeps them on disk. Belongs to one event loop.

    Args:
        collect: makes the L1 cache report its clicks to *counter*.
        clock: the present time in UTC; a click counts in the hour in which it is flushed.
        new_id: makes 32 unique hexadecimal digits.
        described: what visits looked like; flushed after the clicks, and counted in the same hour.
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
        described: Described | None = None,
    ) -> None:
        self._counter = counter
        self._collect = collect
        self._sender = BatchSender("click publisher", "clicks", bus, spool)
        self._clock = clock
        self._new_id = new_id
        self._described = described

    @property
    def published(self) -> int:
        """How many clicks the bus has confirmed since the start."""
        return self._sender.published

    @property
    def spilled(self) -> int:
        """How many clicks were kept on disk first, since the start."""
        return self._sender.spilled

    @property
    def buffered(self) -> int:
        """How many clicks are in memory; those that the L1 cache still counts are not included."""
        return len(self._counter) + visits_of(self._sender.pending)

    @property
    def spooled_bytes(self) -> int:
        """The size of the clicks on disk."""
        return self._sender.spooled_bytes

    @property
    def dropped(self) -> int:
        """How many clicks were lost since the start: neither bus nor disk accepted them."""
        return self._sender.lost + self._counter.dropped

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

        Takes little longer than two publishes, and as much again for what visits looked like. A cancelled
        flush loses nothing: the next continues.
        """
        self._cut()
        await self._sender.send()
        await self._sender.replay()
        if self._described is not None:
            await self._described.flush()

    async def aclose(self) -> None:
        """Flush for the last time."""
        await self.flush()
        while self._described is not None and self._described.is_behind:
            await self._described.flush()

    def _cut(self) -> None:
        self._collect()
        counted = self._counter.take()
        now = self._clock()
        hour = now.replace(minute=0, second=0, microsecond=0)
        for start in range(0, len(counted), MAX_CLICKED_SLUGS_A_MESSAGE):
            part = counted[start : start + MAX_CLICKED_SLUGS_A_MESSAGE]
            self._sender.pending.append(ClicksCounted(self._new_id(), hour, dict(part)))
        if self._described is not None:
            self._described.cut(now)
