"""Store, replicas, cache, bus and rate limiter of one process: which adapter, with which guards."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, assert_never

from pydantic import SecretStr

from app.adapters.guarded import guarded_bus, guarded_cache, guarded_store
from app.adapters.guards import DependencyGuards
from app.bootstrap.tracing import Traces
from app.concurrency.background import running
from app.concurrency.stopping import close
from app.domain.errors import SettingsError, Unavailable
from app.ports import EventBus, LinkCache, LinkReplica, Policy, Store
from app.resilience.deadline import CACHE_CONNECT_S, CACHE_S, COMMAND_CACHE_S, COMMAND_S, COMMAND_WAIT_S
from app.settings import Settings
from app.settings.reports import report_settings
from app.settings.tracing import tracing_settings
from app.telemetry.metrics import Source
from app.telemetry.sources import PoolState, guard_samples, pool_samples
from app.telemetry.timing import Timings, timed

if TYPE_CHECKING:
    from app.adapters.native_limiter import NativeRateLimiter

# The connection pools of a process, by name: each adapter adds its own.
Pools = list[Callable[[], Mapping[str, PoolState]]]
# A batch of events in progress is finished first, then each connection is closed.
_BUS_CLOSE_S = 15.0

# --- checks before a start ---------------------------------------------------------------


async def check_settings(settings: Settings) -> None:
    """
    Check what only a driver or the limiter can: the one check of every command that serves or examines.

    Raises:
        SettingsError: a rate limit, a URL, or a variable of OpenTelemetry or Sentry cannot be parsed, or the
            certificates cannot be used.
        ImportError: a driver is not installed.
    """
    tracing_settings()
    report_settings()
    if settings.tls_cert is not None:
        from app.web.certificates import Certificates

        certificates = Certificates.of(settings)
        if certificates is not None:
            certificates.check()
    await check_urls(settings)
    check_limits(settings)


def check_servers(settings: Settings) -> None:
    """
    Ask PostgreSQL, if it answers, what a gateway or worker cannot live with.

    Raises:
        SettingsError: a connection pooler answers.
    """
    if settings.database_url is not None:
        from app.adapters.postgres.pooler import check_server

        urls = [("HOPGATE_DATABASE_URL", settings.database_url)]
        urls += [("HOPGATE_DATABASE_REPLICA_URLS", url) for url in settings.database_replica_urls]
        for name, url in urls:
            check_server(url.get_secret_value(), what=name)


async def check_urls(settings: Settings) -> None:
    """
    Let the drivers parse the URLs; connects to nothing.

    Raises:
        SettingsError: one of them cannot be parsed.
    """
    if settings.database_url is not None:
        from app.adapters.postgres.pool import read_url

        read_url(settings.database_url.get_secret_value(), "primary")
        for url in settings.database_replica_urls:
            read_url(url.get_secret_value(), "standby")
    async with open_cache(settings), open_bus(settings, starts=False):
        pass


def check_limits(settings: Settings) -> None:
    """
    Make the rate limiter of every policy once, and read the URL that shares them; connects to nothing.

    Raises:
        SettingsError: a limit or the URL cannot be parsed or kept; its setting is named. The limiter
            reads less of a URL than the cache does.
    """
    from app.adapters.native_limiter import NativeRateLimiter, limiters

    # A URL that cannot be read is the fault of another setting: any will do.
    redis_url = "redis://127.0.0.1" if settings.redis_url else None
    for policy, limit in limits(settings).items():
        try:
            limiters(policy, limit, redis_url=redis_url, max_clients=1)
        except (ValueError, OverflowError) as error:
            message = f"HOPGATE_{limit_setting(policy).upper()}: {error}"
            raise SettingsError(message) from None
    if settings.redis_url is None:
        return
    try:
        NativeRateLimiter(limits(settings), redis_url=settings.redis_url.get_secret_value()).close()
    except ValueError as error:
        message = f"HOPGATE_REDIS_URL: {error}"
        raise SettingsError(message) from None


# --- each dependency ---------------------------------------------------------------------


@asynccontextmanager
async def open_store(
    settings: Settings, guards: DependencyGuards | None = None, pools: Pools | None = None
) -> AsyncIterator[Store]:
    """
    The store: PostgreSQL, guarded, or SQLite when embedded. Its connections are reported in *pools*.

    Without *guards* it is that of a command, which waits longer for PostgreSQL than requests may.
    """
    store: Store
    if settings.database_url is None:
        from app.adapters.sqlite.store import SqliteStore

        store = await SqliteStore.open(settings.sqlite_path)
    else:
        from app.adapters.postgres.store import PostgresStore

        url = settings.database_url.get_secret_value()
        if guards is None:
            guards = DependencyGuards(is_patient=True)
            wait_s = COMMAND_WAIT_S
            postgres = await PostgresStore.open(url, wait_timeout_s=wait_s, connect_timeout_s=round(wait_s))
        else:
            postgres = await PostgresStore.open(url)
        if pools is not None:
            pools.append(postgres.pools)
        store = guarded_store(postgres, guards.store)
    try:
        yield store
    finally:
        await close("store", store.aclose())


@asynccontextmanager
async def open_replicas(
    settings: Settings, guards: DependencyGuards, pools: Pools
) -> AsyncIterator[LinkReplica | None]:
    """The PostgreSQL replicas for redirects, guarded, their lag watched; None if there are none."""
    if settings.database_url is None or not settings.database_replica_urls:
        yield None
        return
    from app.adapters.postgres.replicas import Replica, Replicas
    from app.adapters.postgres.store import PostgresStore

    async with AsyncExitStack() as stack:

        async def open_one(url: SecretStr, role: str, connections: int) -> PostgresStore:
            store = await PostgresStore.open(
                url.get_secret_value(), role=role, max_connections=connections, statement_timeout_s=1
            )
            stack.push_async_callback(lambda: close(f"connections to the {role}", store.aclose()))
            if role == "standby":
                name = f"replica@{len(pools)}"  # the first are those of the primary
                pools.append(lambda: {name: store.pools()["all"]})
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
        async with running("replica watch", replicas.run()):
            yield replicas


@asynccontextmanager
async def open_cache(
    settings: Settings, guards: DependencyGuards | None = None, *, timeout_s: float = CACHE_S
) -> AsyncIterator[LinkCache]:
    """
    The shared cache: Redis, Redis Cluster or a primary of sentinels, guarded, or memory when embedded.

    Args:
        guards: of the process; without them the cache is that of a command, which waits longer.
        timeout_s: for each reply, and for a free connection.
    """
    cache: LinkCache
    connect_timeout_s = CACHE_CONNECT_S
    if guards is None:
        guards = DependencyGuards(cache_read_s=COMMAND_S, is_patient=True)
        timeout_s = connect_timeout_s = COMMAND_CACHE_S
    url = settings.redis_url.get_secret_value() if settings.redis_url else None
    if url is None:
        from app.adapters.memory.cache import MemoryCache

        cache = MemoryCache()
    elif "+cluster://" in url:
        from app.adapters.redis.cluster import RedisClusterCache

        guard_of = guards.shard

        def guarded(name: str, node: LinkCache) -> LinkCache:
            return guarded_cache(node, guard_of(name))

        cache = RedisClusterCache(
            url,
            guarded=guarded,
            on_removed=guards.forget_shard,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
        )
    elif "+sentinel://" in url:
        from app.adapters.redis.sentinel_cache import RedisSentinelCache

        sentinel = RedisSentinelCache(url, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
        cache = guarded_cache(sentinel, guards.cache)
    else:
        from app.adapters.redis.cache import RedisCache

        redis = RedisCache(url, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
        cache = guarded_cache(redis, guards.cache)
    try:
        yield cache
    finally:
        with suppress(Unavailable):
            await close("cache", cache.aclose())


@asynccontextmanager
async def open_bus(
    settings: Settings, guards: DependencyGuards | None = None, *, starts: bool = True
) -> AsyncIterator[EventBus]:
    """The bus: RabbitMQ, guarded, or this process when embedded. Unless it *starts*, it connects later."""
    bus: EventBus
    if settings.amqp_url is None:
        from app.adapters.memory.bus import InProcessBus

        bus = InProcessBus()
    else:
        from app.adapters.rabbitmq.bus import RabbitBus

        rabbit = RabbitBus(settings.amqp_url.get_secret_value())
        if starts:
            rabbit.start()
        bus = guarded_bus(rabbit, (guards or DependencyGuards()).publish)
    try:
        yield bus
    finally:
        await close("bus", bus.aclose(), within_s=_BUS_CLOSE_S)


@asynccontextmanager
async def open_limiter(settings: Settings) -> AsyncIterator[NativeRateLimiter]:
    """The rate limiter; gateways on one Redis share its counts."""
    from app.adapters.native_limiter import NativeRateLimiter

    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    limiter = NativeRateLimiter(limits(settings), redis_url=redis_url)
    try:
        yield limiter
    finally:
        await close("rate limiter", asyncio.to_thread(limiter.close))


def limits(settings: Settings) -> Mapping[Policy, str]:
    """Return the rate limit of every policy."""
    return {policy: getattr(settings, limit_setting(policy)) for policy in Policy}


def limit_setting(policy: Policy) -> str:
    """Return the name of the setting that limits *policy*."""
    match policy:
        case Policy.REDIRECT:
            return "limit_redirect"
        case Policy.API | Policy.ANONYMOUS:
            return "limit_api"
        case Policy.CREATE:
            return "limit_create"
        case Policy.BULK:
            return "limit_bulk"
        case Policy.NOT_FOUND:
            return "limit_not_found"
        case _:
            assert_never(policy)


# --- all of a process --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What the services of one process work on: guarded, and timed for its metrics."""

    store: Store
    cache: LinkCache
    bus: EventBus
    guards: DependencyGuards
    is_embedded: bool
    timings: tuple[Timings, Timings, Timings]
    traces: Traces
    pools: Pools

    def sources(self) -> Sequence[Source]:
        """Return the metrics of the dependencies. An embedded process has nothing to guard."""
        samples = [*(timing.samples for timing in self.timings), *self.traces.sources]
        if self.is_embedded:
            return samples
        return [partial(guard_samples, self.guards), partial(pool_samples, self.pools), *samples]


@asynccontextmanager
async def open_dependencies(
    settings: Settings, guards: DependencyGuards, traces: Traces, *, cache_timeout_s: float = CACHE_S
) -> AsyncIterator[Dependencies]:
    """Store, cache and bus of one process."""
    pools: Pools = []
    async with (
        open_store(settings, guards, pools) as store,
        open_cache(settings, guards, timeout_s=cache_timeout_s) as cache,
        open_bus(settings, guards) as bus,
    ):
        timings = Timings("store"), Timings("cache"), Timings("bus")
        yield Dependencies(
            store=traces.store(timed(Store, store, timings[0])),
            cache=traces.cache(timed(LinkCache, cache, timings[1])),
            bus=traces.bus(timed(EventBus, bus, timings[2])),
            guards=guards,
            is_embedded=settings.embedded,
            timings=timings,
            traces=traces,
            pools=pools,
        )


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)
