"""Calls while PostgreSQL refuses connections: which wait, which fail fast."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import aclosing

import psycopg
import pytest

from app.adapters.postgres.pool_state import PoolState
from app.adapters.postgres.store import PostgresStore
from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.telemetry.families import POOL_CONNECTIONS, POOL_MAX, POOL_WAITING
from app.telemetry.sources import pool_samples
from tests.contract.postgres_sessions import execute, wait_for_a_waiting_backend
from tests.servers.postgres import PrivatePostgres

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    """A private server, as these tests kill it."""
    with PrivatePostgres() as server:
        yield server


async def test_refused_connection_fails_callers_fast(server: PrivatePostgres) -> None:
    async with aclosing(await PostgresStore.open(server.create_database(), wait_timeout_s=60)) as store:
        await store.ping()
        server.kill()
        try:
            async with asyncio.timeout(10):
                for _ in range(3):
                    answers = await asyncio.gather(*(store.ping() for _ in range(4)), return_exceptions=True)
                    assert all(isinstance(answer, Unavailable) for answer in answers), answers
        finally:
            server.start()

        await store.ping()


async def test_connections_are_reported_by_their_state(server: PrivatePostgres) -> None:
    url = server.create_database()
    async with aclosing(await PostgresStore.open(url, max_connections=4, wait_timeout_s=60)) as store:
        await store.ping()
        async with asyncio.timeout(30):
            # A connection that is being opened counts as used.
            while (idle := store.pools())["look_up"].used:
                await asyncio.sleep(0.01)
        with psycopg.connect(url) as blocker:
            blocker.execute("LOCK TABLE links")
            busy = [asyncio.create_task(store.get(Slug("slug"))) for _ in range(3)]
            async with asyncio.timeout(30):
                while (state := store.pools()["look_up"]) != PoolState(2, 0, 2, 1):
                    assert state.used + state.idle <= 2
                    await asyncio.sleep(0.01)
        await asyncio.gather(*busy)
        samples = pool_samples([store.pools])

    assert idle["look_up"] == PoolState(0, idle["look_up"].idle, 2, 0)
    assert idle["look_up"].idle >= 1
    assert idle.keys() == {"look_up", "write"}
    assert samples[POOL_CONNECTIONS.of("look_up", "used")] == [0]
    assert samples[POOL_CONNECTIONS.of("look_up", "idle")] == [2]
    assert samples[POOL_MAX.of("write")] == [2]
    assert samples[POOL_WAITING.of("look_up")] == [0]


async def _answers(store: PostgresStore) -> bool:
    with contextlib.suppress(Unavailable):
        await store.ping()
        return True
    return False


async def test_call_waits_for_a_connection_in_use(
    server: PrivatePostgres,
) -> None:
    url = server.create_database()
    role = url.rpartition("/")[2]
    execute(
        url,
        f"CREATE ROLE \"{role}\" LOGIN CONNECTION LIMIT 1 PASSWORD 'single';"
        f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{role}"',
    )
    limited = f"postgresql://{role}:single@{url.partition('@')[2]}"
    async with aclosing(await PostgresStore.open(limited, max_connections=2, wait_timeout_s=60)) as store:
        async with asyncio.timeout(10):
            # The pool may ask for both at once, and the server refuses one.
            while not await _answers(store):
                await asyncio.sleep(0.05)
        with psycopg.connect(url) as blocker:
            blocker.execute("LOCK TABLE links")
            busy = asyncio.create_task(store.get(Slug("slug")))
            await wait_for_a_waiting_backend(url)
            waits = asyncio.create_task(store.ping())
            async with asyncio.timeout(10):
                while "too many connections" not in store._connections._refusal:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            assert await busy is None
            await waits
