"""`LinkReplica` over streaming replicas: which replicas are used, and for which links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from app.adapters.guards import DependencyGuards
from app.adapters.postgres.replicas import Replica, Replicas
from app.adapters.postgres.store import PostgresStore
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.ports import REPLICA_LAG_S, Changed
from app.service.l1_cache import MIN_VERSION_TTL_S
from tests.conftest import ManualTime
from tests.contract.postgres_sessions import open_connected
from tests.servers.postgres import PostgresReplica, PrivatePostgres

pytestmark = pytest.mark.services
NOW = datetime(2030, 1, 31, tzinfo=UTC)
SLUG = Slug("slug")
FIELDS = LinkFields(long_url="https://example.com/")


async def shown(replicas: Replicas, slug: Slug) -> Resolution | None:
    """Return the target of *slug* according to a replica."""
    return (await replicas.resolve([slug])).get(slug)


@pytest.fixture
def primary() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture
def standby(primary: PrivatePostgres, url: str) -> Iterator[PostgresReplica]:
    assert url  # created before the replica is copied
    with PostgresReplica(primary) as server:
        yield server


@pytest.fixture
def url(primary: PrivatePostgres) -> str:
    return primary.create_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = await open_connected(url)
    yield store
    await store.aclose()


@pytest.fixture
async def replicas(
    url: str, primary: PrivatePostgres, standby: PostgresReplica, monotonic: ManualTime
) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        there = url.replace(f":{primary.port}", f":{standby.port}")
        opened = [
            await open_connected(url, max_connections=1, statement_timeout_s=1),
            await open_connected(there, role="standby", statement_timeout_s=1),
        ]
        for one in opened:
            stack.push_async_callback(one.aclose)
        yield Replicas(
            opened[0],
            [Replica(opened[1], DependencyGuards().replica())],
            monotonic=monotonic,
            wall=NOW.timestamp,
            random=lambda: 0.0,
        )


async def is_current(replicas: Replicas) -> bool:
    await replicas.compare()
    return replicas._replicas[0].current_at == replicas._monotonic()


async def until_current(replicas: Replicas) -> None:
    async with asyncio.timeout(20):
        while not await is_current(replicas):
            await asyncio.sleep(0.02)


def replay(standby: PostgresReplica, verb: str) -> None:
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        connection.execute(f"SELECT pg_wal_replay_{verb}()".encode())
        while verb == "pause":
            row = connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchone()
            if row == ("paused",):
                return
            time.sleep(0.01)


def test_replica_lag_is_within_l1_memory() -> None:
    """L1 remembers minimum versions for longer than a replica may lag."""
    assert MIN_VERSION_TTL_S > REPLICA_LAG_S + 2


async def test_current_replica_answers(replicas: Replicas, store: PostgresStore) -> None:
    await store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
    assert await shown(replicas, SLUG) is None  # no position is proven yet

    await until_current(replicas)

    assert await shown(replicas, SLUG) == Resolution(SLUG, 1, "https://example.com/")


async def test_replica_returns_live_links_only(replicas: Replicas, store: PostgresStore) -> None:
    """For links unknown, removed, disabled, expired or not yet valid, the primary may be newer."""
    later, earlier = NOW.replace(year=2031), NOW.replace(year=2029)
    kinds = {
        "live": FIELDS,
        "disabled": replace(FIELDS, enabled=False),
        "expired": replace(FIELDS, expires_at=earlier),
        "early": replace(FIELDS, valid_from=later),
        "removed": FIELDS,
    }
    await store.add([NewLink(slug=Slug(name), fields=fields) for name, fields in kinds.items()], now=NOW)
    await store.remove(Slug("removed"), expected_version=None, now=NOW)
    await until_current(replicas)

    told = [name for name in [*kinds, "unknown"] if await shown(replicas, Slug(name)) is not None]

    assert told == ["live"]


async def test_lagging_replica_is_not_used(
    replicas: Replicas, store: PostgresStore, standby: PostgresReplica, monotonic: ManualTime
) -> None:
    """It may serve changes late by at most `REPLICA_LAG_S`, and is used again once it has caught up."""
    await store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
    await until_current(replicas)
    replay(standby, "pause")
    changed = replace(FIELDS, long_url="https://example.com/new")
    assert isinstance(await store.update(SLUG, changed, expected_version=1, now=NOW), Changed)

    monotonic.now += REPLICA_LAG_S - 0.1
    await replicas.compare()
    copy = await shown(replicas, SLUG)
    assert copy is not None
    assert copy.version == 1
    monotonic.now += 0.2
    await replicas.compare()
    assert await shown(replicas, SLUG) is None

    replay(standby, "resume")
    await until_current(replicas)
    copy = await shown(replicas, SLUG)
    assert copy is not None
    assert copy.version == 2


async def test_an_idle_primary_is_not_lag(
    replicas: Replicas, store: PostgresStore, monotonic: ManualTime
) -> None:
    await store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
    await until_current(replicas)
    for _ in range(20):
        monotonic.now += 1
        await replicas.compare()

    assert await shown(replicas, SLUG) is not None


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_unavailable_replica_returns_nothing(
    replicas: Replicas, store: PostgresStore, standby: PostgresReplica, fault: str
) -> None:
    await store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
    await until_current(replicas)
    getattr(standby, fault)()

    assert [await shown(replicas, SLUG) for _ in range(12)] == [None] * 12

    if fault == "pause":
        standby.resume()


async def test_unavailable_primary_proves_nothing(
    replicas: Replicas, store: PostgresStore, primary: PrivatePostgres, monotonic: ManualTime
) -> None:
    await store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
    await until_current(replicas)
    primary.kill()
    monotonic.now += REPLICA_LAG_S + 0.1

    await replicas.compare()

    assert await shown(replicas, SLUG) is None


async def test_promoted_replica_is_not_used(
    replicas: Replicas, store: PostgresStore, standby: PostgresReplica, monotonic: ManualTime
) -> None:
    """Both continue alone, on different timelines: their positions do not compare."""
    await store.add([NewLink(slug=SLUG, fields=FIELDS)], now=NOW)
    await until_current(replicas)
    standby.promote()
    monotonic.now += REPLICA_LAG_S + 0.1

    assert not await is_current(replicas)
    assert await shown(replicas, SLUG) is None
