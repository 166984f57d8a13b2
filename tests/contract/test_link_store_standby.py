"""The PostgreSQL store while its synchronous standby is stopped: commits wait, whatever one does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from app.adapters.postgres.store import PostgresStore
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.ports import Added
from tests.contract.postgres_sessions import execute, open_connected
from tests.servers.postgres import PostgresReplica, PrivatePostgres

pytestmark = pytest.mark.services
NOW = datetime(2030, 1, 31, tzinfo=UTC)
KNOWN = Slug("known")
MAX_CONNECTIONS = 8
STATEMENT_S = 0.2
# After which a session is abandoned: see `pool.py`.
ABANDONED_S = STATEMENT_S + 1


def new(slug: str) -> list[NewLink]:
    return [NewLink(slug=Slug(slug), fields=LinkFields(long_url="https://example.com/"))]


@pytest.fixture(scope="module")
def primary() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary: PrivatePostgres) -> Iterator[PostgresReplica]:
    with PostgresReplica(primary) as server:
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        yield server
        server.resume()


@pytest.fixture
def url(primary: PrivatePostgres, standby: PostgresReplica) -> str:
    return primary.create_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = await open_connected(
        url, max_connections=MAX_CONNECTIONS, wait_timeout_s=0.1, statement_timeout_s=STATEMENT_S
    )
    await store.add(new(KNOWN), now=NOW)
    yield store
    await store.aclose()


def sessions(url: str) -> int:
    [(count,)] = execute(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hopgate'")
    return int(count)


def waiting(url: str) -> list[int]:
    rows = execute(url, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return [pid for (pid,) in rows]


async def test_abandoned_commits_count_against_the_connections(
    store: PostgresStore, url: str, standby: PostgresReplica
) -> None:
    writes: list[asyncio.Task[object]] = []
    seen = []
    standby.pause()
    try:
        # Long enough for each connection to be abandoned several times over.
        end = time.monotonic() + 6 * ABANDONED_S
        while time.monotonic() < end:
            number = len(writes)
            fields = LinkFields(long_url="https://example.com/")
            change = store.update(KNOWN, fields, expected_version=1, now=NOW)
            writes.append(
                asyncio.create_task(store.add(new(f"s-{number}"), now=NOW) if number % 2 else change)
            )
            if number % 2:
                change.close()
            seen.append(await asyncio.to_thread(sessions, url))
            assert await store.get(KNOWN) is not None  # a cold visit
            await asyncio.sleep(0.03)
        failed = [task.exception() for task in writes if task.done()]
        assert failed
        assert all(isinstance(error, Unavailable) and not error.stored_nothing for error in failed)
        assert waiting(url)
    finally:
        standby.resume()

    assert max(seen) <= MAX_CONNECTIONS
    async with asyncio.timeout(3):
        while waiting(url):
            await asyncio.sleep(0.02)
    assert isinstance(await store.add(new("after"), now=NOW), Added)
    assert sessions(url) <= MAX_CONNECTIONS
    await asyncio.gather(*writes, return_exceptions=True)


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_wait_that_an_administrator_ends_is_no_confirmed_commit(
    store: PostgresStore, url: str, standby: PostgresReplica, function: str
) -> None:
    """PostgreSQL reports success with a warning; only the primary has the commit."""
    standby.pause()
    try:
        write = asyncio.create_task(store.add(new("local"), now=NOW))
        async with asyncio.timeout(5):
            while not (pids := await asyncio.to_thread(waiting, url)):
                await asyncio.sleep(0.01)
        execute(url, f"SELECT {function}({pids[0]})")

        with pytest.raises(Unavailable) as caught:
            await write
        assert not caught.value.stored_nothing
        assert await store.get(Slug("local")) is not None
    finally:
        standby.resume()


async def test_close_does_not_wait_for_abandoned_commits(url: str, standby: PostgresReplica) -> None:
    store = await open_connected(url, statement_timeout_s=STATEMENT_S)
    await store.ping()
    standby.pause()
    try:
        with pytest.raises(Unavailable, match="no answer"):
            await store.add(new("stuck"), now=NOW)
        start = time.monotonic()
        await store.aclose()
        assert time.monotonic() - start < ABANDONED_S + 1
    finally:
        standby.resume()
