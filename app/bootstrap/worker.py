"""One worker process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial

from app.adapters import sketches
from app.adapters.guards import DependencyGuards
from app.bootstrap.dependencies import open_dependencies, utc_now
from app.bootstrap.reports import open_reports
from app.bootstrap.tracing import open_traces
from app.bootstrap.webhooks import new_dispatcher
from app.concurrency.background import serving
from app.domain.domains import DomainIndex
from app.domain.events import WorkQueue
from app.resilience.deadline import CACHE_FILL_S
from app.service.domains import DomainWatch, NoAnswers
from app.settings import Settings, host_and_port
from app.telemetry import prometheus
from app.telemetry.deliveries import DeliveryCounts
from app.telemetry.errors import ErrorCounts
from app.telemetry.metrics import Metrics, Source
from app.telemetry.process import process_samples
from app.telemetry.sources import (
    added_clicks_samples,
    consistency_samples,
    outbox_samples,
    queue_samples,
    webhook_samples,
)
from worker.main import Worker, run_worker


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Worker]:
    """Run one worker process in the background of the body."""
    guards = DependencyGuards(cache_read_s=CACHE_FILL_S)
    errors = ErrorCounts()
    deliveries = new_deliveries(errors)
    domains = DomainIndex(settings.public_url)
    async with (
        open_reports("hopgate-worker"),
        open_traces(settings, "hopgate-worker") as traces,
        open_dependencies(settings, guards, traces, cache_timeout_s=CACHE_FILL_S) as to,
        serving("domain watch", DomainWatch(to.store, domains, NoAnswers())) as watch,
        run_worker(
            to.store,
            to.cache,
            to.bus,
            deliveries,
            webhooks=new_dispatcher(settings, to.store, domains, watch.look),
            merge=sketches.merge,
            clock=utc_now,
            monotonic=time.monotonic,
            history=timedelta(days=settings.history_days),
            events=timedelta(days=settings.events_days),
            visits=timedelta(days=settings.analytics_days),
        ) as worker,
    ):
        sources = [process_samples, errors.samples, *to.sources(), *worker_sources(worker, deliveries)]
        with _metrics_server(settings, sources):
            yield worker


def new_deliveries(errors: ErrorCounts) -> Mapping[WorkQueue, DeliveryCounts]:
    """Return the counts of each work queue of a worker; failures are counted in *errors*."""
    return {queue: DeliveryCounts(queue, errors) for queue in WorkQueue}


def worker_sources(worker: Worker, deliveries: Mapping[WorkQueue, DeliveryCounts]) -> Sequence[Source]:
    """Return the metrics that only a worker has."""
    return (
        *(counts.samples for counts in deliveries.values()),
        partial(consistency_samples, worker.sampler),
        partial(outbox_samples, worker.outbox),
        partial(queue_samples, worker.queues),
        partial(added_clicks_samples, worker.clicks),
        partial(webhook_samples, worker.webhooks),
    )


@contextmanager
def _metrics_server(settings: Settings, sources: Sequence[Source]) -> Iterator[None]:
    """Serve the metrics of a process that serves nothing else."""
    if settings.metrics_bind is None:
        yield
        return
    stop = prometheus.serve(*host_and_port(settings.metrics_bind), Metrics(sources).own)
    try:
        yield
    finally:
        stop()
