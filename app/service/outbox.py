"""
From the outbox to the broker: at once by whoever wrote the change, later by the relay.

A change is in the outbox from its own transaction until the broker confirmed it, so neither
a crash nor an outage loses it; it may be delivered twice, which costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Resolution
from app.ports import Changed, EventBus, LinkStore, OutboxEvent
from app.resilience.deadline import SYNC_CACHE_S, within
from app.service.cache_sync import CacheSync
from app.service.hot_links import HotLinks

log = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH = 200
# Longer than publishing can take (1.6 s): so long nobody else publishes the same.
_LEASE_S = 2.0
_LONGEST_PAUSE_S = 1.0
# What waits here waits in the outbox too, so it may be dropped: the relay pays the debt.
_MAX_WAITING = 10_000


class OutboxPublisher:
    """
    Publishes changes in batches right after their transaction, off the request.

    It writes them to the shared cache as well (see docs/adr/0005) and tells the other gateways
    (docs/adr/0010); while the broker does not confirm, it writes in the request itself, so that the
    writer's next read sees the change. A publish that waits for its confirm keeps no change from the
    cache: one seconds late would be seen later still. What is written is what was committed: the
    store may be away by then (docs/adr/0011).
    """

    def __init__(
        self, store: LinkStore, bus: EventBus, sync: CacheSync, local: HotLinks[Any] | None = None
    ) -> None:
        self._store = store
        self._bus = bus
        self._sync = sync
        self._local = local
        self._unpublished: asyncio.Queue[OutboxEvent] = asyncio.Queue(_MAX_WAITING)
        self._uncached: asyncio.Queue[Changed] = asyncio.Queue(_MAX_WAITING)
        self._unannounced: asyncio.Queue[LinkChanged] = asyncio.Queue(_MAX_WAITING)
        self._confirming = True

    async def deliver(self, changes: Sequence[Changed]) -> None:
        """Take *changes* over from a request that has committed. Never raises, never takes long."""
        if self._local is not None:
            self._local.replace([Resolution.of(change.link) for change in changes])
        _enqueue(self._unpublished, [change.event for change in changes])
        _enqueue(self._uncached, changes)
        if not self._confirming:
            with contextlib.suppress(TimeoutError):
                async with within(SYNC_CACHE_S):
                    await self._write_cache(changes)

    async def run(self) -> None:
        """Publish, write to the cache and announce, until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(_in_batches(self._unpublished, self._publish))
            loops.create_task(_in_batches(self._uncached, self._write_cache))
            loops.create_task(_in_batches(self._unannounced, self._announce))

    async def flush(self) -> None:
        """Publish what still waits, once: what the broker does not take stays in the outbox."""
        await _with_what_waits(self._unpublished, self._publish)
        await _with_what_waits(self._uncached, self._write_cache)
        await _with_what_waits(self._unannounced, self._announce)

    async def _publish(self, batch: Sequence[OutboxEvent]) -> None:
        confirmed = not await publish_and_drop(self._store, self._bus, batch)
        if confirmed != self._confirming:
            log.warning("the broker confirms again" if confirmed else "the broker does not confirm")
        self._confirming = confirmed

    async def _write_cache(self, batch: Sequence[Changed]) -> None:
        # The worker does the same, and is who guarantees it; but visitors should not have to
        # wait for a worker that is away.
        with contextlib.suppress(Unavailable):
            try:
                await self._sync.write([Resolution.of(change.link) for change in batch])
            except Unavailable:
                # Who has heard of a change believes no older copy. If the store could not be asked
                # either, they would be left with no copy at all.
                await self._sync.present([change.link.slug for change in batch])
            _enqueue(self._unannounced, [change.event.change for change in batch])

    async def _announce(self, batch: Sequence[LinkChanged]) -> None:
        with contextlib.suppress(Unavailable):
            await self._bus.announce(batch)


async def _in_batches(queue: asyncio.Queue[T], work: Callable[[Sequence[T]], Awaitable[None]]) -> None:
    """Do *work* with whatever comes to *queue*, until cancelled."""
    while True:
        await work([await queue.get(), *_taken(queue, _BATCH - 1)])


async def _with_what_waits(queue: asyncio.Queue[T], work: Callable[[Sequence[T]], Awaitable[None]]) -> None:
    """Do *work* with what is in *queue* already."""
    while batch := _taken(queue):
        await work(batch)


def _enqueue(queue: asyncio.Queue[T], items: Sequence[T]) -> None:
    with contextlib.suppress(asyncio.QueueFull):
        for item in items:
            queue.put_nowait(item)


def _taken(queue: asyncio.Queue[T], at_most: int = _BATCH) -> list[T]:
    """Take what is in *queue* already."""
    return [queue.get_nowait() for _ in range(min(at_most, queue.qsize()))]


class OutboxRelay:
    """
    Sweeps the outbox for changes that their writer did not deliver. Any number may run.

    What the broker did not take it keeps, and offers again before it takes more: else each attempt
    would lease another batch for nothing, and a broker that is back would wait for those leases.
    """

    def __init__(self, store: LinkStore, bus: EventBus, *, poll_s: float = 0.2) -> None:
        self._store = store
        self._bus = bus
        self._poll_s = poll_s
        self._kept: dict[int, OutboxEvent] = {}

    async def run(self) -> None:
        """Relay until cancelled; back off while the store or the broker is away."""
        pause = self._poll_s
        while True:
            try:
                moved, stuck = await self.sweep()
            except Unavailable as error:
                log.warning("relay waits: %s", error)
                moved, stuck = 0, True
            if stuck:
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                await asyncio.sleep(pause)
            else:
                pause = self._poll_s
                if moved < _BATCH:
                    await asyncio.sleep(pause)

    async def sweep(self) -> tuple[int, bool]:
        """
        Fill up a batch and deliver it; return how many rows it had and whether any is stuck.

        Raises:
            Unavailable: the store did not answer.
        """
        events = self._kept
        if room := _BATCH - len(events):
            # Leases of what is kept may be over: then it comes again.
            events |= {
                event.id: event for event in await self._store.take_events(limit=room, lease_s=_LEASE_S)
            }
        if not events:
            return 0, False
        unconfirmed = await publish_and_drop(self._store, self._bus, list(events.values()))
        self._kept = {event.id: event for event in unconfirmed}
        return len(events), bool(unconfirmed)


async def publish_and_drop(
    store: LinkStore, bus: EventBus, events: Sequence[OutboxEvent]
) -> Sequence[OutboxEvent]:
    """Publish *events* and forget those that were confirmed; return the others."""
    confirmations = await bus.publish([event.change for event in events])
    confirmed = [event.id for event, taken in zip(events, confirmations, strict=True) if taken]
    if confirmed:
        # A row that could not be dropped is delivered again later.
        with contextlib.suppress(Unavailable):
            await store.drop_events(confirmed)
    return [event for event, taken in zip(events, confirmations, strict=True) if not taken]
