"""Every method of a port is guarded, and an open breaker lets nothing through to the adapter."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from app.adapters.cache_redis import RedisCache
from app.adapters.guarded import GuardedBus, GuardedCache, GuardedStore, Guards
from app.adapters.store_postgres import PostgresStore
from app.domain.errors import Unavailable
from app.domain.events import ClicksCounted, LinkChanged
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.ports import ApiKey, EventBus, LinkCache, LinkStore
from app.resilience.breaker import State
from tests.contract.bus_parties import until
from tests.contract.cache_entries import A, cached, live
from tests.servers.postgres import PrivatePostgres
from tests.servers.redis import PrivateRedis

NOW = datetime(2030, 1, 31, tzinfo=UTC)
SLUG = Slug("slug")
KEY = ApiKey(key_id="k", name="n", secret_hash=b"h", scopes=frozenset(), created_at=NOW)
COUNTED = ClicksCounted("0" * 32, NOW, {SLUG: 1})
FIELDS = LinkFields(long_url="https://example.com/")

# One call of each method. A method that is missing here fails the tests: guard it, then add it.
CALLS: dict[type, dict[str, Callable[[Any], Awaitable[Any]]]] = {
    LinkStore: {
        "add": lambda store: store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW),
        "get": lambda store: store.get(SLUG),
        "get_many": lambda store: store.get_many([SLUG]),
        "resolve": lambda store: store.resolve([SLUG]),
        "page": lambda store: store.page(after=None, limit=1),
        "update": lambda store: store.update(SLUG, FIELDS, expected_version=1, now=NOW),
        "remove": lambda store: store.remove(SLUG, expected_version=1, now=NOW),
        "touch": lambda store: store.touch([SLUG]),
        "take_events": lambda store: store.take_events(limit=1, lease_s=1),
        "drop_events": lambda store: store.drop_events([1]),
        "outbox_depth": lambda store: store.outbox_depth(),
        "forget_requests": lambda store: store.forget_requests(before=NOW),
        "fold_clicks": lambda store: store.fold_clicks(COUNTED, now=NOW),
        "hourly_clicks": lambda store: store.hourly_clicks(SLUG, since=NOW, until=NOW),
        "forget_batches": lambda store: store.forget_batches(before=NOW),
        "lease_visits": lambda store: store.lease_visits(SLUG),
        "return_visits": lambda store: store.return_visits(SLUG, 1),
        "add_key": lambda store: store.add_key(KEY),
        "get_key": lambda store: store.get_key("k"),
        "list_keys": lambda store: store.list_keys(),
        "revoke_key": lambda store: store.revoke_key("k", now=NOW),
    },
    LinkCache: {
        "get_many": lambda cache: cache.get_many([SLUG]),
        "put": lambda cache: cache.put([Resolution.absent(SLUG)]),
        "scan": lambda cache: cache.scan(0),
        "forget": lambda cache: cache.forget([SLUG]),
    },
    EventBus: {
        "publish": lambda bus: bus.publish([LinkChanged(SLUG, 1)]),
        "announce": lambda bus: bus.announce([LinkChanged(SLUG, 1)]),
    },
}
# How one looks, leaves, and subscribes: these work whatever the breakers say.
UNGUARDED = {LinkStore: {"ping", "aclose"}, LinkCache: {"ping", "aclose"}}
UNGUARDED[EventBus] = {"ping", "aclose", "listen", "consume", "consume_clicks"}


class Forbidden:
    """An adapter that must not be asked for anything."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: Any, **__: Any) -> None:
            raise AssertionError(f"{name} reached the adapter")

        return fail


def guarded(port: type) -> Any:
    """Return the guarded adapter of *port*, every breaker held open."""
    guards = Guards()
    store = guards.store
    every = [store.lookup, store.create, store.change, store.bulk]
    for guard in (*every, guards.cache.read, guards.cache.write, guards.publish):
        guard.breaker.force(State.OPEN)
    adapter: Any = Forbidden()
    if port is LinkStore:
        return GuardedStore(adapter, guards.store)
    return GuardedCache(adapter, guards.cache) if port is LinkCache else GuardedBus(adapter, guards.publish)


@pytest.mark.parametrize("port", CALLS, ids=lambda port: port.__name__)
def test_no_method_of_a_port_is_forgotten(port: type) -> None:
    methods = {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}

    assert methods == CALLS[port].keys() | UNGUARDED[port]


@pytest.mark.parametrize(
    ("port", "name"), [(port, name) for port, calls in CALLS.items() for name in calls], ids=str
)
async def test_an_open_breaker_is_unavailable_at_once(port: type, name: str) -> None:
    adapter = guarded(port)
    if name == "publish":
        assert await CALLS[port][name](adapter) == [False]
        return
    with pytest.raises(Unavailable, match="left alone"):
        await CALLS[port][name](adapter)


async def seconds_until_it_answers(store: LinkStore) -> float:
    start = time.monotonic()
    while True:
        try:
            assert await store.get(SLUG) is not None
        except Unavailable:
            assert time.monotonic() < start + 15
            await asyncio.sleep(0.01)
        else:
            return time.monotonic() - start


# --- with real servers -----------------------------------------------------------------


@pytest.fixture
async def paused_cache() -> AsyncIterator[tuple[PrivateRedis, GuardedCache]]:
    """A Redis of our own, as this test stops it."""
    with PrivateRedis() as server:
        cache = GuardedCache(RedisCache(server.url), Guards().cache)
        await cache.put([live(A, 1)])
        yield server, cache
        server.resume()
        await cache.aclose()


@pytest.mark.services
async def test_a_silent_redis_costs_one_read_its_time_and_all_others_none(paused_cache) -> None:
    """Stopped, not dead: whoever comes after the first that was given up is not kept waiting."""
    server, cache = paused_cache
    server.pause()
    reasons: list[str] = []
    async with asyncio.timeout(10):
        # Those after the first find out beside the callers, until it is left alone.
        while not any("left alone" in reason for reason in reasons):
            with pytest.raises(Unavailable) as caught:
                await cached(cache, A)
            reasons.append(caught.value.reason)
            await asyncio.sleep(0.01)
    given_up = [reason for reason in reasons[:-1] if "only being tried again" not in reason]
    server.resume()
    async with asyncio.timeout(10):
        while True:
            try:
                found = await cached(cache, A)
                break
            except Unavailable:
                await asyncio.sleep(0.02)

    assert len(given_up) == 1
    assert found == live(A, 1)


@pytest.mark.services
@pytest.mark.parametrize("trouble", ["readonly", "oom", "misconf", "noreplicas"])
async def test_a_redis_that_refuses_writes_still_answers_reads(trouble: str) -> None:
    """However many writes fail: a cache that can be read is read."""
    with PrivateRedis() as server:
        guards = Guards(cache_read_s=2)
        cache = GuardedCache(RedisCache(server.url, timeout_s=2), guards.cache)
        await cache.put([live(A, 1)])
        if trouble == "readonly":
            server.command("REPLICAOF", "127.0.0.1", "1")
        elif trouble == "oom":
            server.config_set("maxmemory", "1")
        elif trouble == "noreplicas":
            server.config_set("min-replicas-to-write", "1")
        else:
            # A snapshot cannot replace a directory, so it fails, and Redis stops writing.
            (server.directory / "dump.rdb" / "full").mkdir(parents=True)
            server.config_set("save", "3600 1")
            server.command("BGSAVE")
            await until(lambda: server.info()["rdb_last_bgsave_status"] == "err")
        for version in range(2, 22):
            with pytest.raises(Unavailable):
                await cache.put([live(A, version)])
            assert await cached(cache, A) == live(A, 1)

        snapshot = guards.snapshot()
        assert snapshot["redis.write"].state is not State.CLOSED
        assert snapshot["redis.read"].state is State.CLOSED
        await cache.aclose()


@pytest.mark.services
async def test_a_store_that_refuses_writes_still_answers_reads(postgres: PrivatePostgres) -> None:
    """A disk that is full, or a primary that became a replica."""
    url = postgres.create_database()
    guards = Guards()
    store = GuardedStore(await PostgresStore.open(url), guards.store)
    await CALLS[LinkStore]["add"](store)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    read_only = GuardedStore(await PostgresStore.open(url), guards.store)
    for _ in range(20):
        with pytest.raises(Unavailable):
            await read_only.touch([SLUG])
        assert await read_only.get(SLUG) is not None

    snapshot = guards.snapshot()
    assert snapshot["postgresql.change"].state is not State.CLOSED
    assert snapshot["postgresql.lookup"].state is State.CLOSED
    await read_only.aclose()
    await store.aclose()


@pytest.mark.services
async def test_a_read_under_way_when_its_connection_dies_is_done_again(postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    store = GuardedStore(await PostgresStore.open(url), Guards().store)
    await CALLS[LinkStore]["add"](store)

    def execute(statement: bytes) -> list[Any]:
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    waiting = (
        b"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE links")
        read = asyncio.ensure_future(store.get_many([SLUG]))
        killed: set[int] = set()
        async with asyncio.timeout(10):
            while not killed:
                await asyncio.sleep(0.01)
                for (pid,) in execute(waiting):
                    execute(b"SELECT pg_terminate_backend(%d)" % pid)
                    killed.add(pid)
            while not {pid for (pid,) in execute(waiting)} - killed:
                await asyncio.sleep(0.01)

    assert SLUG in await read
    await store.aclose()


@pytest.mark.services
async def test_reads_come_back_soon_after_the_store_does() -> None:
    """Though every breaker is open by then: no more than three seconds after the server answers."""
    with PrivatePostgres() as server:
        store = GuardedStore(await PostgresStore.open(server.create_database()), Guards().store)
        await CALLS[LinkStore]["add"](store)
        server.kill()
        guards_seen = set()
        for _ in range(60):
            with pytest.raises(Unavailable) as caught:
                await store.get(SLUG)
            guards_seen.add("left alone" in caught.value.reason)
            await asyncio.sleep(0.01)
        server.start()
        recovery_s = await seconds_until_it_answers(store)
        await store.aclose()

    assert guards_seen == {False, True}
    assert recovery_s < 3
