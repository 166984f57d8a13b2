"""Runs everything that a worker does, over the ports it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from app.concurrency.background import running
from app.domain.events import WorkQueue
from app.ports import EventBus, LinkCache, Store
from app.service.cache_sync import CacheSync
from worker.cache_events import CacheEventConsumer
from worker.clicks import ClickConsumer
from worker.housekeeping import Housekeeping
from worker.outbox_depth import OutboxDepthWatch
from worker.relay import OutboxRelay
from worker.sampling import ConsistencySampler


@dataclass(frozen=True, slots=True)
class Worker:
    """The parts of a running worker that report about it."""

    sampler: ConsistencySampler
    outbox: OutboxDepthWatch


@asynccontextmanager
async def run_worker(
    store: Store,
    cache: LinkCache,
    bus: EventBus,
    *,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float],
) -> AsyncIterator[Worker]:
    """
    Run a worker in the background of the body. Its consumers end when *bus* is closed.

    Args:
        clock: the present time in UTC.
        monotonic: seconds that never go back.
    """
    worker = Worker(
        ConsistencySampler(store, cache, monotonic=monotonic), OutboxDepthWatch(store, monotonic=monotonic)
    )
    cache_events = CacheEventConsumer(CacheSync(store, cache, bus), worker.sampler)
    await bus.consume(WorkQueue.CACHE, cache_events.handle)
    await bus.consume(WorkQueue.CLICKS, ClickConsumer(store, clock=clock).handle)
    async with (
        running("consistency sampler", worker.sampler.run()),
        running("outbox relay", OutboxRelay(store, bus).run()),
        running("outbox depth watch", worker.outbox.run()),
        running("housekeeping", Housekeeping(store, clock=clock, monotonic=monotonic).run()),
    ):
        yield worker
