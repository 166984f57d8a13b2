"""
The composition root: the only place that knows both ports and adapters.

Each `open_*` returns a context manager that closes what it opened, in reverse.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import can_ada
from pydantic import SecretStr

from app.adapters.guarded import GuardedBus, GuardedCache, GuardedStore, Guards
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged
from app.ports import EventBus, LinkCache, LinkReplica, LinkStore, Policy
from app.resilience.admission import Admission
from app.resilience.deadline import CACHE_FILL_S, CACHE_S
from app.resilience.tarpit import Tarpit
from app.service.admission import Entrance
from app.service.cache_sync import CacheSync
from app.service.clicks import ClickCounter, ClickFolder, Clicks
from app.service.consistency import ConsistencySampler
from app.service.hot_links import HotLinks
from app.service.keys import Authenticator
from app.service.links import Links, leave_to_relay
from app.service.outbox import OutboxPublisher, OutboxRelay
from app.service.redirects import Redirects
from app.service.stats import Stats
from app.service.visits import Visits
from app.settings import Settings, host_and_port
from app.telemetry.outbox import OutboxWatch
from app.telemetry.samples import Samples, merge
from app.telemetry.sharing import SharedSamples
from app.telemetry.timing import Timings, timed
from app.web.answer import Answer
from app.web.metrics import (
    Metrics,
    consistency_samples,
    guard_samples,
    process_samples,
    redirect_samples,
)
from app.web.redirect import RedirectLane, render
from app.web.services import Services

log = logging.getLogger(__name__)

# As long as clients may retry a create with the same Idempotency-Key.
_REQUEST_MEMORY = timedelta(hours=24)
# Longer than a batch of clicks travels, unless its broker is away for a day.
_BATCH_MEMORY = timedelta(hours=24)
_HOUSEKEEPING_S = 600.0


async def check_urls(settings: Settings) -> None:
    """
    Have the drivers read the URLs; connects to nothing.

    Raises:
        SettingsError: one of them cannot be read.
    """
    if settings.database_url is not None:
        from app.adapters.store_postgres_pool import read_url

        read_url(settings.database_url.get_secret_value(), "primary")
        for url in settings.database_replica_urls:
            read_url(url.get_secret_value(), "standby")
    async with open_cache(settings):
        pass


@asynccontextmanager
async def open_store(settings: Settings, guards: Guards | None = None) -> AsyncIterator[LinkStore]:
    """The truth: PostgreSQL, guarded, or SQLite when embedded."""
    store: LinkStore
    if settings.database_url is None:
        from app.adapters.store_sqlite import SqliteStore

        store = await SqliteStore.open(settings.sqlite_path)
    else:
        from app.adapters.store_postgres import PostgresStore

        postgres = await PostgresStore.open(settings.database_url.get_secret_value())
        store = GuardedStore(postgres, (guards or Guards()).store)
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def open_replicas(settings: Settings, guards: Guards) -> AsyncIterator[LinkReplica | None]:
    """Replicas of PostgreSQL for redirects, guarded, and watched; None if there are none."""
    if settings.database_url is None or not settings.database_replica_urls:
        yield None
        return
    from app.adapters.store_postgres import PostgresStore
    from app.adapters.store_replicas import Replica, Replicas

    async with AsyncExitStack() as stack:

        async def open_one(url: SecretStr, role: str, connections: int) -> PostgresStore:
            store = await PostgresStore.open(
                url.get_secret_value(), role=role, max_connections=connections, statement_timeout_s=1
            )
            stack.push_async_callback(store.aclose)
            return store

        replicas = Replicas(
            await open_one(settings.database_url, "primary", 1),
            [
                Replica(await open_one(url, "standby", 4), guards.replica())
                for url in settings.database_replica_urls
            ],
            monotonic=time.monotonic,
            wall=time.time,
            random=random.random,
        )
        async with _running("replica watch", replicas.run()):
            yield replicas


@asynccontextmanager
async def open_cache(
    settings: Settings, guards: Guards | None = None, *, timeout_s: float = CACHE_S
) -> AsyncIterator[LinkCache]:
    """The shared cache: Redis or a cluster of them, guarded, or memory when embedded."""
    cache: LinkCache
    guards = guards or Guards()
    url = settings.redis_url.get_secret_value() if settings.redis_url else None
    if url is None:
        from app.adapters.cache_memory import MemoryCache

        cache = MemoryCache()
    elif "+cluster://" in url:
        from app.adapters.cache_redis_cluster import RedisClusterCache

        shard = guards.shard
        cache = RedisClusterCache(
            url,
            guarded=lambda name, node: GuardedCache(node, shard(name)),
            gone=guards.forget_shard,
            timeout_s=timeout_s,
        )
    else:
        from app.adapters.cache_redis import RedisCache

        cache = GuardedCache(RedisCache(url, timeout_s=timeout_s), guards.cache)
    try:
        yield cache
    finally:
        with suppress(Unavailable):
            await cache.aclose()


@asynccontextmanager
async def open_bus(settings: Settings, guards: Guards | None = None) -> AsyncIterator[EventBus]:
    """The bus: RabbitMQ, guarded, or this process when embedded."""
    bus: EventBus
    if settings.amqp_url is None:
        from app.adapters.bus_inprocess import InProcessBus

        bus = InProcessBus()
    else:
        from app.adapters.bus_rabbitmq import RabbitBus

        rabbit = RabbitBus(settings.amqp_url.get_secret_value())
        rabbit.start()
        bus = GuardedBus(rabbit, (guards or Guards()).publish)
    try:
        yield bus
    finally:
        await bus.aclose()


@asynccontextmanager
async def open_links(settings: Settings) -> AsyncIterator[Links]:
    """The verbs alone, for the command line: changes reach the caches by way of the relay."""
    async with open_store(settings) as store:
        yield Links(
            store, leave_to_relay, clock=utc_now, choice=secrets.choice, own_hosts=own_hosts(settings)
        )


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncIterator[Services]:
    """One gateway process. Embedded, it is its own worker too."""
    from app.adapters.gate_native import NativeGate
    from app.adapters.spool_file import FileSpool

    guards = Guards()
    async with AsyncExitStack() as stack:
        timings = Timings("store"), Timings("cache"), Timings("bus")
        store = timed(await stack.enter_async_context(open_store(settings, guards)), timings[0])
        cache = timed(await stack.enter_async_context(open_cache(settings, guards)), timings[1])
        bus = timed(await stack.enter_async_context(open_bus(settings, guards)), timings[2])
        outbox = OutboxWatch(store)
        gate = NativeGate(
            {
                Policy.REDIRECT: settings.limit_redirect,
                Policy.API: settings.limit_api,
                Policy.ANONYMOUS: settings.limit_api,
                Policy.CREATE: settings.limit_create,
                Policy.NOT_FOUND: settings.limit_not_found,
            },
            redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
        )
        stack.push_async_callback(asyncio.to_thread, gate.close)
        counter = ClickCounter()
        hot: HotLinks[Answer] = HotLinks(
            render, monotonic=time.monotonic, wall=time.time, clicked=counter.count
        )
        admission = Admission()
        entrance = Entrance(admission, monotonic=time.monotonic)
        replicas = await stack.enter_async_context(open_replicas(settings, guards))
        redirects = Redirects(hot, cache, store, bus, entrance, replica=replicas)
        stack.push_async_callback(redirects.aclose)
        sync = CacheSync(store, cache, bus)
        sampler = ConsistencySampler(store, cache, monotonic=time.monotonic)
        publisher = OutboxPublisher(store, bus, sync, hot)
        stack.push_async_callback(publisher.flush)
        spool = FileSpool(settings.data_dir / "clicks", new_name=lambda: secrets.token_hex(16))
        stack.push_async_callback(spool.aclose)
        clicks = Clicks(counter, hot.harvest, bus, spool, clock=utc_now, new_id=lambda: secrets.token_hex(16))
        stack.push_async_callback(clicks.flush)
        visits = Visits(store, monotonic=time.monotonic)
        stack.push_async_callback(visits.aclose)
        await bus.listen(hot)
        await stack.enter_async_context(_running("outbox publisher", publisher.run()))
        await stack.enter_async_context(_running("cache filler", redirects.run()))
        await stack.enter_async_context(_running("admission", entrance.run()))
        await stack.enter_async_context(_running("click counter", clicks.run()))
        await stack.enter_async_context(_running("visits", visits.run()))
        if settings.embedded:
            await stack.enter_async_context(_working(store, cache, bus, sampler, outbox))
        lane = RedirectLane(hot, redirects, gate, counter, visits, monotonic=time.monotonic)
        metrics = Metrics(
            [
                lambda: redirect_samples(lane, gate),
                lambda: process_samples(redirects, hot, admission, gate),
                lambda: guard_samples({} if settings.embedded else guards.snapshot()),
                lambda: {("hopgate_clicks_dropped", ()): [clicks.dropped]},
                lambda: consistency_samples(sampler) if settings.embedded else {},
                outbox.samples,
                *(one.samples for one in timings),
            ],
            SharedSamples(settings.metrics_dir, clock=time.time) if settings.metrics_dir else None,
        )
        stack.callback(metrics.close)
        await stack.enter_async_context(_running("metrics", metrics.run()))
        yield Services(
            links=Links(
                store, publisher.deliver, clock=utc_now, choice=secrets.choice, own_hosts=own_hosts(settings)
            ),
            stats=Stats(store, clock=utc_now),
            lane=lane,
            metrics=metrics,
            authenticator=Authenticator(store, monotonic=time.monotonic),
            gate=gate,
            entrance=entrance,
            tarpit=Tarpit(monotonic=time.monotonic),
            probes={"store": store.ping, "cache": cache.ping, "bus": bus.ping},
            guards=None if settings.embedded else guards.snapshot,
            is_draining=settings.draining_path.exists if settings.draining_path else lambda: False,
            public_url=settings.public_url,
            trusted_proxies=settings.trusted_proxies,
            trace_id=lambda: secrets.token_hex(8),
        )


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[ConsistencySampler]:
    """One worker process: consumes events and relays the outbox, until closed. Gives its sampler."""
    guards = Guards(cache_read_s=CACHE_FILL_S)
    async with (
        open_store(settings, guards) as untimed_store,
        open_cache(settings, guards, timeout_s=CACHE_FILL_S) as untimed_cache,
        open_bus(settings, guards) as untimed_bus,
    ):
        timings = Timings("store"), Timings("cache"), Timings("bus")
        store = timed(untimed_store, timings[0])
        cache = timed(untimed_cache, timings[1])
        bus = timed(untimed_bus, timings[2])
        outbox = OutboxWatch(store)
        sampler = ConsistencySampler(store, cache, monotonic=time.monotonic)
        sources: list[Callable[[], Samples]] = [
            lambda: {("hopgate_processes", ()): [1.0]},
            lambda: guard_samples(guards.snapshot()),
            lambda: consistency_samples(sampler),
            outbox.samples,
            *(one.samples for one in timings),
        ]
        with _metrics_server(settings, sources):
            async with _working(store, cache, bus, sampler, outbox):
                yield sampler


@contextmanager
def _metrics_server(settings: Settings, sources: Sequence[Callable[[], Samples]]) -> Iterator[None]:
    """The metrics of a process that serves nothing else."""
    if settings.metrics_bind is None:
        yield
        return
    from app.telemetry import prometheus

    stop = prometheus.serve(
        *host_and_port(settings.metrics_bind), lambda: merge(source() for source in sources)
    )
    try:
        yield
    finally:
        stop()


@asynccontextmanager
async def _working(
    store: LinkStore,
    cache: LinkCache,
    bus: EventBus,
    sampler: ConsistencySampler,
    outbox: OutboxWatch,
) -> AsyncIterator[None]:
    sync = CacheSync(store, cache, bus)

    async def apply(events: Sequence[Event]) -> None:
        await sync.apply(events)
        sampler.note([event for event in events if isinstance(event, LinkChanged)])

    await bus.consume(apply)
    await bus.consume_clicks(ClickFolder(store, clock=utc_now).apply)
    async with (
        _running("consistency sampler", sampler.run()),
        _running("outbox relay", OutboxRelay(store, bus).run()),
        _running("outbox watch", outbox.run()),
        _running("housekeeping", _keep_house(store)),
    ):
        yield


async def _keep_house(store: LinkStore) -> None:
    while True:
        with suppress(Unavailable):
            await store.forget_requests(before=utc_now() - _REQUEST_MEMORY)
            await store.forget_batches(before=utc_now() - _BATCH_MEMORY)
        await asyncio.sleep(_HOUSEKEEPING_S)


@asynccontextmanager
async def _running(name: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run *work* beside the body, and stop it after. If it fails by itself, the process ends."""

    def check(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # A process that looks alive without its publisher is worse than none: whoever
            # supervises it starts another.
            log.critical("%s failed; stopping this process", name, exc_info=task.exception())
            os.kill(os.getpid(), signal.SIGTERM)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(check)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


def own_hosts(settings: Settings) -> frozenset[str]:
    """Hosts that lead back here: a link to one of them could loop."""
    host: str = can_ada.parse(settings.public_url).hostname
    return frozenset({host, host.removeprefix("www."), f"www.{host}"})
