"""Every method of a port is guarded: with an open breaker no call reaches the adapter."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from app.adapters.guarded import guarded_bus, guarded_cache, guarded_store
from app.adapters.guards import DependencyGuards
from app.adapters.redis.cache import RedisCache
from app.adapters.sketches import merge
from app.concurrency.guard import DependencyGuard
from app.domain.blocks import Block, BlockKind
from app.domain.domains import DomainSettings
from app.domain.errors import Unavailable
from app.domain.events import ClicksCounted, LinkChanged, VisitsDescribed
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.domain.visits import LinkVisits
from app.domain.webhooks import DeliveryState, EventFilter, Webhook
from app.ports import (
    ApiKey,
    Attempted,
    ConsoleSession,
    EventBus,
    ImportedLink,
    LinkCache,
    LinkQuery,
    LinkState,
    Store,
    Wanted,
)
from app.resilience.breaker import BreakerState
from tests.contract.bus_parties import until
from tests.contract.cache_entries import A, cached, live
from tests.contract.postgres_sessions import open_connected
from tests.servers.postgres import PrivatePostgres
from tests.servers.redis import PrivateRedis

NOW = datetime(2030, 1, 31, tzinfo=UTC)
SLUG = Slug("slug")
BLOCK = Block(BlockKind.HOST, "evil.example")
KEY = ApiKey(key_id="k", name="n", secret_hash=b"h", scopes=frozenset(), created_at=NOW)
COUNTED = ClicksCounted("0" * 32, NOW, {SLUG: 1})
DESCRIBED = VisitsDescribed("0" * 32, NOW, {SLUG: LinkVisits({})})
FIELDS = LinkFields(long_url="https://example.com/")
ATTEMPTED = Attempted(state=DeliveryState.DEAD, at=NOW, next_attempt_at=NOW)
HOOK = Webhook(
    webhook_id="wh_1",
    url="https://hooks.example/",
    name="",
    filter=EventFilter(),
    enabled=True,
    secret=b"s",
    created_at=NOW,
    updated_at=NOW,
)
SESSION = ConsoleSession(id_hash=bytes(32), key_id="k", secret_hash=bytes(32), created_at=NOW, expires_at=NOW)
IMPORTED = ImportedLink(slug=SLUG, fields=FIELDS, created_at=NOW)

# One call of each guarded method.
CALLS: dict[type[object], dict[str, Callable[[Any], Awaitable[Any]]]] = {
    Store: {
        "add": lambda store: store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW),
        "get": lambda store: store.get(SLUG),
        "get_many": lambda store: store.get_many([SLUG]),
        "resolve": lambda store: store.resolve([SLUG]),
        "page": lambda store: store.page(after=None, limit=1),
        "update": lambda store: store.update(SLUG, FIELDS, expected_version=1, now=NOW),
        "remove": lambda store: store.remove(SLUG, expected_version=1, now=NOW),
        "find_external": lambda store: store.find_external(["x"]),
        "write_batch": lambda store: store.write_batch(Wanted(), lambda _found: None, now=NOW),
        "readdress": lambda store: store.readdress(SLUG, to=SLUG, aliases=(), expected_version=1, now=NOW),
        "touch": lambda store: store.touch([SLUG]),
        "find": lambda store: store.find(LinkQuery(), after=None, limit=1, now=NOW),
        "count": lambda store: store.count(LinkQuery(), now=NOW, limit_s=1),
        "totals": lambda store: store.totals(limit_s=1),
        "tags": lambda store: store.tags(after=None, limit=1),
        "retag": lambda store: store.retag("a", "b", limit=1, now=NOW),
        "history": lambda store: store.history(SLUG, before=None, limit=1),
        "restore": lambda store: store.restore(
            SLUG, LinkState(FIELDS, removed=False), expected_version=1, now=NOW
        ),
        "forget_history": lambda store: store.forget_history(before=NOW, limit=1),
        "add_imported": lambda store: store.add_imported([IMPORTED], now=NOW),
        "find_imported": lambda store: store.find_imported(["k"]),
        "export_page": lambda store: store.export_page(after=None, limit=1),
        "take_events": lambda store: store.take_events(limit=1, lease_s=1),
        "drop_events": lambda store: store.drop_events([1]),
        "outbox_depth": lambda store: store.outbox_depth(),
        "add_blocks": lambda store: store.add_blocks([BLOCK], now=NOW),
        "remove_blocks": lambda store: store.remove_blocks([BLOCK]),
        "add_domain": lambda store: store.add_domain(
            "go.example", DomainSettings(), case_sensitive=True, now=NOW
        ),
        "change_domain": lambda store: store.change_domain(0, DomainSettings(), expected_version=1, now=NOW),
        "remove_domain": lambda store: store.remove_domain(1, now=NOW),
        "expire_links": lambda store: store.expire_links(now=NOW, limit=1),
        "events_after": lambda store: store.events_after(0, limit=1),
        "forget_events": lambda store: store.forget_events(before=NOW, limit=1),
        "add_webhook": lambda store: store.add_webhook(HOOK, most=1),
        "webhooks": lambda store: store.webhooks(),
        "change_webhook": lambda store: store.change_webhook(HOOK),
        "remove_webhook": lambda store: store.remove_webhook("wh_1"),
        "plan_deliveries": lambda store: store.plan_deliveries("wh_1", [], after=0, until=1, now=NOW),
        "take_deliveries": lambda store: store.take_deliveries("wh_1", limit=1, lease=timedelta(1), now=NOW),
        "note_attempts": lambda store: store.note_attempts("wh_1", {1: ATTEMPTED}),
        "deliveries": lambda store: store.deliveries("wh_1", before=None, limit=1),
        "replay_dead": lambda store: store.replay_dead("wh_1", now=NOW),
        "replay_after": lambda store: store.replay_after("wh_1", 0),
        "block_page": lambda store: store.block_page(before=None, limit=1),
        "forget_requests": lambda store: store.forget_requests(before=NOW),
        "add_clicks": lambda store: store.add_clicks(COUNTED, now=NOW),
        "hourly_clicks": lambda store: store.hourly_clicks(SLUG, since=NOW, until=NOW),
        "spent_visits": lambda store: store.spent_visits([SLUG]),
        "add_visits": lambda store: store.add_visits([DESCRIBED], now=NOW, merge=merge),
        "roll_up_visits": lambda store: store.roll_up_visits(since=NOW, until=NOW),
        "visit_values": lambda store: store.visit_values(SLUG, since=NOW, until=NOW, limit=5),
        "visitor_sketches": lambda store: store.visitor_sketches(SLUG, first=NOW.date(), last=NOW.date()),
        "visitor_key": lambda store: store.visitor_key(NOW.date(), b"k" * 32),
        "forget_visits": lambda store: store.forget_visits(before=NOW, limit=5),
        "forget_visitor_keys": lambda store: store.forget_visitor_keys(before=NOW.date()),
        "forget_batches": lambda store: store.forget_batches(before=NOW),
        "visit_kinds": lambda store: store.visit_kinds(SLUG, starts=[NOW], until=NOW),
        "lease_quota": lambda store: store.lease_quota(SLUG),
        "quota_left": lambda store: store.quota_left(SLUG),
        "return_quota": lambda store: store.return_quota(SLUG, 1, 1),
        "add_key": lambda store: store.add_key(KEY),
        "get_key": lambda store: store.get_key("k"),
        "list_keys": lambda store: store.list_keys(),
        "rotate_key": lambda store: store.rotate_key("k", old=b"o", new=b"n", old_until=NOW),
        "note_key_uses": lambda store: store.note_key_uses({"k": NOW}),
        "revoke_key": lambda store: store.revoke_key("k", now=NOW),
        "add_session": lambda store: store.add_session(SESSION, keep=1),
        "get_session": lambda store: store.get_session(b"h"),
        "list_sessions": lambda store: store.list_sessions(),
        "end_session": lambda store: store.end_session(b"h"),
        "forget_sessions": lambda store: store.forget_sessions(before=NOW, limit=1),
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
# Readiness, shutdown and subscriptions: they work whatever the state of the breakers.
UNGUARDED = {Store: {"ping", "try_write", "epoch", "aclose"}, LinkCache: {"ping", "aclose"}}
# One task of a process reads them, and goes on when the store answers again.
UNGUARDED[Store] |= {"blocks_version", "blocks_since", "domains_version", "domains"}
UNGUARDED[Store] |= {"number_events", "last_event", "webhook_work"}
UNGUARDED[EventBus] = {"ping", "aclose", "listen", "consume", "queue_depths"}


class Forbidden:
    """An adapter whose every call is a failure."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: Any, **__: Any) -> None:
            raise AssertionError(f"{name} reached the adapter")

        return fail


def open_breaker(guard: DependencyGuard) -> None:
    now = time.monotonic()
    while (permit := guard.breaker.admit(now)) is not None:
        guard.breaker.settle(permit, now, took_s=0, failed=True)


def refusing(port: type) -> Any:
    """Return the guarded adapter of *port*, every breaker open."""
    guards = DependencyGuards()
    store = guards.store
    every = [store.lookup, store.create, store.change, store.batch, store.bulk]
    for guard in (*every, guards.cache.read, guards.cache.write, guards.publish):
        open_breaker(guard)
    adapter: Any = Forbidden()
    if port is Store:
        return guarded_store(adapter, guards.store)
    return guarded_cache(adapter, guards.cache) if port is LinkCache else guarded_bus(adapter, guards.publish)


@pytest.mark.parametrize("port", CALLS, ids=lambda port: port.__name__)
def test_every_method_has_a_case(port: type[object]) -> None:
    methods = {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}

    assert methods == CALLS[port].keys() | UNGUARDED[port]


@pytest.mark.parametrize(
    ("port", "name"), [(port, name) for port, calls in CALLS.items() for name in calls], ids=str
)
async def test_open_breaker_refuses_at_once(port: type, name: str) -> None:
    adapter = refusing(port)
    if name == "publish":
        assert await CALLS[port][name](adapter) == [False]
        return
    with pytest.raises(Unavailable, match=r"circuit breaker \S+ is open"):
        await CALLS[port][name](adapter)


async def seconds_until_answer(store: Store) -> float:
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
async def paused_cache() -> AsyncIterator[tuple[PrivateRedis, LinkCache]]:
    """A private Redis, as the test pauses it."""
    with PrivateRedis() as server:
        cache = guarded_cache(RedisCache(server.url), DependencyGuards().cache)
        await cache.put([live(A, 1)])
        yield server, cache
        server.resume()
        await cache.aclose()


@pytest.mark.services
async def test_silent_redis_delays_one_read_only(paused_cache) -> None:
    """Paused, not dead: one read runs into its deadline, all later ones are refused at once."""
    server, cache = paused_cache
    server.pause()
    reasons: list[str] = []
    async with asyncio.timeout(10):
        # Probes run beside the callers until the breaker opens.
        while not any("is open" in reason for reason in reasons):
            with pytest.raises(Unavailable) as caught:
                await cached(cache, A)
            reasons.append(caught.value.reason)
            await asyncio.sleep(0.01)
    given_up = [reason for reason in reasons[:-1] if "waiting for a probe" not in reason]
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
async def test_redis_refusing_writes_still_answers_reads(trouble: str) -> None:
    """Failed writes open the breaker of writes only."""
    with PrivateRedis() as server:
        guards = DependencyGuards(cache_read_s=2)
        cache = guarded_cache(RedisCache(server.url, timeout_s=2), guards.cache)
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
        assert snapshot["redis.write"].state is not BreakerState.CLOSED
        assert snapshot["redis.read"].state is BreakerState.CLOSED
        await cache.aclose()


@pytest.mark.services
async def test_store_refusing_writes_still_answers_reads(postgres: PrivatePostgres) -> None:
    """A disk that is full, or a primary that became a replica."""
    url = postgres.create_database()
    guards = DependencyGuards()
    store = guarded_store(await open_connected(url), guards.store)
    await CALLS[Store]["add"](store)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    read_only = guarded_store(await open_connected(url), guards.store)
    for _ in range(20):
        with pytest.raises(Unavailable):
            await read_only.touch([SLUG])
        assert await read_only.get(SLUG) is not None

    snapshot = guards.snapshot()
    assert snapshot["postgresql.change"].state is not BreakerState.CLOSED
    assert snapshot["postgresql.lookup"].state is BreakerState.CLOSED
    await read_only.aclose()
    await store.aclose()


@pytest.mark.services
async def test_read_whose_connection_dies_is_retried(postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    store = guarded_store(await open_connected(url), DependencyGuards().store)
    await CALLS[Store]["add"](store)

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
async def test_reads_recover_soon_after_the_store() -> None:
    """With every breaker open: within three seconds of the server answering."""
    with PrivatePostgres() as server:
        store = guarded_store(await open_connected(server.create_database()), DependencyGuards().store)
        await CALLS[Store]["add"](store)
        server.kill()
        guards_seen = set()
        for _ in range(60):
            with pytest.raises(Unavailable) as caught:
                await store.get(SLUG)
            guards_seen.add("is open" in caught.value.reason)
            await asyncio.sleep(0.01)
        server.start()
        recovery_s = await seconds_until_answer(store)
        await store.aclose()

    assert guards_seen == {False, True}
    assert recovery_s < 3
