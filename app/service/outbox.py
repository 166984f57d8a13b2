"""
Publishes changes of links: to the broker, the shared cache and the other gateways.

A change stays in the outbox from its own transaction until the broker confirms it, so neither a
crash nor an outage loses it. The gateway that made it publishes it at once; a relay publishes what
is left (see `worker.relay`). It may be delivered twice, which does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from app.concurrency.origins import on_behalf_of
from app.concurrency.stopping import together
from app.concurrency.time_limit import within
from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Link, Resolution, Slug
from app.ports import Changed, EventBus, OutboxEvent, OutboxStore
from app.resilience.deadline import SYNC_CACHE_S
from app.service.cache_sync import CacheSync
from app.service.l1_cache import L1

log = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH = 200
# Queued changes are in the outbox as well: those beyond this are dropped here and left to the relay.
_MAX_WAITING = 10_000


class OutboxPublisher:
    """
    Publishes changes in batches after their transaction, outside the request.

    - It also writes them to the shared cache (docs/adr/0005) and announces them to the other
      gateways (docs/adr/0010). The three run independently: a publish that waits for its confirm
      does not delay the cache.
    - While the broker does not confirm, the request itself writes the shared cache, so that the
      client's next read sees the change.
    - It writes what was committed, without reading it again: the store may be unreachable by then
      (docs/adr/0011).

    Args:
        local: the L1 cache of this process, updated before the request is answered.
        wall: unix seconds, for the age of changes.
    """

    def __init__(
        self,
        store: OutboxStore,
        bus: EventBus,
        sync: CacheSync,
        local: L1[Any] | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._bus = bus
        self._sync = sync
        self._local = local
        self._wall = wall
        self._unpublished: asyncio.Queue[OutboxEvent] = asyncio.Queue(_MAX_WAITING)
        self._uncached: asyncio.Queue[Changed] = asyncio.Queue(_MAX_WAITING)
        self._unannounced: asyncio.Queue[LinkChanged] = asyncio.Queue(_MAX_WAITING)
        self._confirming = True

    async def deliver(self, changes: Sequence[Changed]) -> None:
        """Deliver *changes*, which were just committed. Never raises; takes at most `SYNC_CACHE_S`."""
        now = self._wall()
        changes = [_committed(change, now) for change in changes]
        if self._local is not None:
            self._local.replace(_resolutions(changes))
        _enqueue(self._unpublished, [change.event for change in changes])
        _enqueue(self._uncached, changes)
        if not self._confirming:
            with contextlib.suppress(TimeoutError):
                async with within(SYNC_CACHE_S):
                    await self._write_cache(changes)

    def appear(self, links: Sequence[Link]) -> None:
        """
        Show *links*, which are new and have random slugs, to this process; the relay publishes them.

        No other process was asked for a slug that was drawn a moment ago, so no cache holds anything of it.
        """
        if self._local is not None:
            peek = self._local.peek
            self._local.replace([Resolution.of(link) for link in links if peek(link.slug) is not None])

    async def run(self) -> None:
        """Publish, write to the cache and announce, until cancelled."""
        loops = [
            _in_batches(self._unpublished, self._publish),
            _in_batches(self._uncached, self._write_cache),
            _in_batches(self._unannounced, self._announce),
        ]
        await together(loops, "outbox publisher")

    async def flush(self) -> None:
        """Deliver what is queued, once: what the broker does not confirm stays in the outbox."""
        await _drain(self._unpublished, self._publish)
        await _drain(self._uncached, self._write_cache)
        await _drain(self._unannounced, self._announce)

    async def aclose(self) -> None:
        """Flush for the last time."""
        await self.flush()

    async def _publish(self, batch: Sequence[OutboxEvent]) -> None:
        unconfirmed = await publish_and_drop(self._store, self._bus, batch)
        is_confirming = not unconfirmed
        if is_confirming and not self._confirming:
            log.warning("outbox publisher: the broker confirms again")
        elif self._confirming and not is_confirming:
            log.warning(
                "outbox publisher: the broker does not confirm %d of %d changes; the relay retries them",
                len(unconfirmed),
                len(batch),
            )
        self._confirming = is_confirming

    async def _write_cache(self, batch: Sequence[Changed]) -> None:
        # A worker does the same, and guarantees it. This write is for redirects while no worker runs.
        whose = [change.event.change.origin for change in batch]
        with contextlib.suppress(Unavailable), on_behalf_of(whose):
            try:
                await self._sync.write(_resolutions(batch))
            except Unavailable:
                # A gateway that has seen the announcement rejects older copies. It then needs the
                # store: announce only if the store answers.
                await self._sync.present([change.link.slug for change in batch])
            _enqueue(self._unannounced, _announced(batch))

    async def _announce(self, batch: Sequence[LinkChanged]) -> None:
        with contextlib.suppress(Unavailable), on_behalf_of(change.origin for change in batch):
            await self._bus.announce(batch)


def _others(change: Changed) -> tuple[Slug, ...]:
    """Return the slugs that have the version of the link, besides its own."""
    return (*change.link.aliases, *change.ended)


def _resolutions(changes: Sequence[Changed]) -> list[Resolution]:
    """Return what the caches hold after *changes*, aliases included."""
    links = (change.link for change in changes)
    others = (Resolution.of(change.link, slug) for change in changes for slug in _others(change))
    return [*map(Resolution.of, links), *others]


def _announced(changes: Sequence[Changed]) -> list[LinkChanged]:
    """Return the events of *changes*, and of aliases, whose outbox rows are left to the relay."""
    events = [change.event.change for change in changes]
    others = (replace(change.event.change, slug=slug) for change in changes for slug in _others(change))
    return [*events, *others]


def _committed(changed: Changed, at: float) -> Changed:
    event = changed.event
    return replace(changed, event=replace(event, change=replace(event.change, committed_at=at)))


async def _in_batches(queue: asyncio.Queue[T], work: Callable[[Sequence[T]], Awaitable[None]]) -> None:
    """Do *work* with batches from *queue*, until cancelled."""
    while True:
        await work([await queue.get(), *_taken(queue, _BATCH - 1)])


async def _drain(queue: asyncio.Queue[T], work: Callable[[Sequence[T]], Awaitable[None]]) -> None:
    """Do *work* with everything that is in *queue*."""
    while batch := _taken(queue):
        await work(batch)


def _enqueue(queue: asyncio.Queue[T], items: Sequence[T]) -> None:
    with contextlib.suppress(asyncio.QueueFull):
        for item in items:
            queue.put_nowait(item)


def _taken(queue: asyncio.Queue[T], at_most: int = _BATCH) -> list[T]:
    """Take up to *at_most* items from *queue*, without waiting."""
    return [queue.get_nowait() for _ in range(min(at_most, queue.qsize()))]


async def publish_and_drop(
    store: OutboxStore, bus: EventBus, events: Sequence[OutboxEvent]
) -> Sequence[OutboxEvent]:
    """Publish *events* and drop the confirmed rows from the outbox; return the unconfirmed ones."""
    with on_behalf_of(event.change.origin for event in events):
        confirmations = await bus.publish([event.change for event in events])
        confirmed = [event.id for event, taken in zip(events, confirmations, strict=True) if taken]
        if confirmed:
            # A row that could not be dropped is published again later.
            with contextlib.suppress(Unavailable):
                await store.drop_events(confirmed)
    return [event for event, taken in zip(events, confirmations, strict=True) if not taken]
