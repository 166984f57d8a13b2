"""Runs everything that a worker does, over the ports it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.concurrency.background import running
from app.domain.events import Event, WorkQueue
from app.ports import DeliveryObserver, EventBus, EventHandler, LinkCache, Merge, Store
from app.service.cache_sync import CacheSync
from worker.cache_events import CacheEventConsumer
from worker.clicks import ClickConsumer
from worker.housekeeping import EVENT_MEMORY, HISTORY_MEMORY, VISIT_MEMORY, Housekeeping
from worker.outbox_depth import OutboxDepthWatch
from worker.queue_depths import QueueDepthWatch
from worker.relay import OutboxRelay
from worker.sampling import ConsistencySampler
from worker.visits import VisitConsumer
from worker.webhooks import WebhookDispatcher


@dataclass(frozen=True, slots=True)
class Worker:
    """The parts of a running worker that report about it."""

    sampler: ConsistencySampler
    outbox: OutboxDepthWatch
    clicks: ClickConsumer
    queues: QueueDepthWatch
    webhooks: WebhookDispatcher


@asynccontextmanager
async def run_worker(
    store: Store,
    cache: LinkCache,
    bus: EventBus,
    observers: Mapping[WorkQueue, DeliveryObserver],
    *,
    webhooks: WebhookDispatcher,
    merge: Merge,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float],
    history: timedelta = HISTORY_MEMORY,
    events: timedelta = EVENT_MEMORY,
    visits: timedelta = VISIT_MEMORY,
) -> AsyncIterator[Worker]:
    """
    Run a worker in the background of the body. Its consumers end when *bus* is closed.

    Args:
        observers: notified of the events of each queue.
        webhooks: delivers what happens to links.
        merge: adds visitors to sketches of them.
        clock: the present time in UTC.
        monotonic: seconds that never go back.
        history: how long the changes of links are kept.
        events: how long what happened to them is kept for webhooks and streams.
        visits: how long it is kept what visits looked like.
    """
    worker = Worker(
        ConsistencySampler(store, cache, monotonic=monotonic),
        OutboxDepthWatch(store, monotonic=monotonic),
        ClickConsumer(store, clock=clock),
        QueueDepthWatch(bus),
        webhooks,
    )
    cache_events = CacheEventConsumer(CacheSync(store, cache, bus), worker.sampler)
    housekeeping = Housekeeping(
        store, clock=clock, monotonic=monotonic, history=history, events=events, visits=visits
    )
    handlers = {
        WorkQueue.CACHE: cache_events.handle,
        WorkQueue.CLICKS: worker.clicks.handle,
        WorkQueue.VISITS: VisitConsumer(store, merge, clock=clock).handle,
    }
    for queue, handle in handlers.items():
        await bus.consume(queue, observed(handle, observers[queue], monotonic), observers[queue])
    async with (
        running("consistency sampler", worker.sampler.run()),
        running("outbox relay", OutboxRelay(store, bus).run()),
        running("outbox depth watch", worker.outbox.run()),
        running("queue depth watch", worker.queues.run()),
        running("webhook dispatcher", webhooks.run()),
        running("housekeeping", housekeeping.run()),
    ):
        yield worker


def observed(
    handle: Callable[[Sequence[Event]], Awaitable[int]],
    observer: DeliveryObserver,
    monotonic: Callable[[], float],
) -> EventHandler:
    """Return *handle*, which returns the number of stale events, as a handler that notifies *observer*."""

    async def handler(events: Sequence[Event]) -> None:
        started = monotonic()
        try:
            stale = await handle(events)
        except Exception as error:
            observer.failed(error)
            raise
        observer.handled(len(events), stale=stale, took_s=monotonic() - started)

    return handler
