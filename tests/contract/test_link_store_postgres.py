"""The PostgreSQL store beyond the contract: dead, silent and refusing servers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from app.adapters.postgres import find_sql
from app.adapters.postgres.pool import Connections
from app.adapters.postgres.store import PostgresStore
from app.domain.errors import SettingsError, Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.ports import Added, IdempotentRequest, LinkQuery, Replayed
from tests.contract.postgres_sessions import execute, open_connected, wait_for_a_waiting_backend
from tests.servers.postgres import PrivatePostgres

pytestmark = pytest.mark.services
NOW = datetime(2030, 1, 31, tzinfo=UTC)
REQUEST = IdempotentRequest("key-1", "order-7", b"digest")


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    """A private server, as these tests kill it."""
    with PrivatePostgres() as server:
        yield server


@pytest.fixture
def url(server: PrivatePostgres) -> str:
    return server.create_database().replace("postgres@", "postgres:s3cret@")


Open = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture
async def open_store(url: str) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_store(url: str = url, **settings: Any) -> PostgresStore:
            store = await open_connected(url, **settings)
            stack.push_async_callback(store.aclose)
            return store

        yield open_store


@pytest.fixture
async def store(open_store: Open) -> PostgresStore:
    store = await open_store(max_connections=4, max_waiting=300, wait_timeout_s=5)
    await store.add(new("slug"), now=NOW)
    return store


def new(*slugs: str) -> list[NewLink]:
    return [
        NewLink(slug=Slug(slug), fields=LinkFields(long_url=f"https://example.com/{slug}")) for slug in slugs
    ]


async def fill_pool(store: PostgresStore) -> None:
    """Grow the pool to its full size, with every connection idle."""
    await asyncio.gather(*(store.get(Slug("slug")) for _ in range(50)))


async def seconds_until(condition: Callable[[], Any]) -> float:
    """Call *condition* until it raises no `Unavailable`; return the seconds that took."""
    start = time.monotonic()
    while True:
        try:
            await condition()
        except Unavailable:
            assert time.monotonic() < start + 15
            await asyncio.sleep(0.01)
        else:
            return time.monotonic() - start


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_restart_between_calls_fails_no_call(
    server: PrivatePostgres, store: PostgresStore, mode: Any
) -> None:
    await fill_pool(store)
    server.stop(mode)
    server.start()

    assert isinstance(await store.add(new("other"), now=NOW), Added)
    assert await store.get(Slug("slug")) is not None


async def test_killed_server_recovers_within_seconds(
    server: PrivatePostgres, url: str, caplog: pytest.LogCaptureFixture, open_store: Open
) -> None:
    caplog.set_level(logging.DEBUG)
    store = await open_store(max_connections=4)
    await store.add(new("slug"), now=NOW)
    await fill_pool(store)
    server.kill()

    reasons = []
    for _ in range(4):
        for call in (store.get(Slug("slug")), store.add(new("x"), now=NOW), store.ping()):
            with pytest.raises(Unavailable) as caught:
                await call
            reasons.append(f"{caught.value!r} {caught.value.__cause__!r}")
    server.start()
    recovery_s = await seconds_until(lambda: store.get(Slug("slug")))

    assert recovery_s < 3
    assert isinstance(await store.add(new("other"), now=NOW), Added)
    assert "s3cret" not in "".join(reasons) + caplog.text


async def test_stuck_pool_is_replaced(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The pool has lost track of its connections and provides none; the server would accept one."""
    connections = await Connections.open(
        url,
        max_connections=2,
        max_waiting=10,
        wait_timeout_s=0.05,
        connect_timeout_s=2,
        statement_timeout_s=2,
        stuck_s=0.2,
    )
    async with aclosing(PostgresStore(connections)) as store:
        await seconds_until(store.ping)
        stuck = connections._pool
        lost = [await stuck.getconn(timeout=5) for _ in range(2)]

        assert await seconds_until(store.ping) < 15
        assert connections._pool is not stuck
        assert "is replaced" in caplog.text
        for connection in lost:
            await stuck.putconn(connection)


async def test_excess_calls_in_outage_leave_pool_usable(
    server: PrivatePostgres, url: str, open_store: Open
) -> None:
    """Long after the pool has given up connecting, the next call starts another attempt."""
    store = await open_store(max_connections=2, max_waiting=5, wait_timeout_s=0.05)
    server.kill()
    for _ in range(50):
        with pytest.raises(Unavailable):
            await store.ping()
    await asyncio.sleep(2)  # the pool has given up by now
    server.start()

    assert await seconds_until(store.ping) < 3


async def test_excess_calls_fail_at_once(url: str, open_store: Open) -> None:
    store = await open_store(max_connections=1, max_waiting=2, wait_timeout_s=5)
    await store.add(new("slug"), now=NOW)
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE links")
        reads = [asyncio.create_task(store.get(Slug("slug"))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="3 calls are pending already"):
            await store.get(Slug("slug"))

    assert all(await asyncio.gather(*reads))


async def test_call_with_dying_connection_was_lost(store: PostgresStore, url: str) -> None:
    """`was_lost` lets the caller decide on a retry."""
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE links")
        read = asyncio.ensure_future(store.get(Slug("slug")))
        await wait_for_a_waiting_backend(url)
        execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

        with pytest.raises(Unavailable, match="57P01") as caught:
            await read

    assert caught.value.was_lost


async def test_write_with_dying_connection_is_not_stored(store: PostgresStore, url: str) -> None:
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE links")
        write = asyncio.ensure_future(store.add(new("other"), now=NOW))
        await wait_for_a_waiting_backend(url)
        execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

        with pytest.raises(Unavailable, match="57P01"):
            await write

    assert await store.get(Slug("other")) is None


async def test_silent_server_is_unavailable_in_time(
    server: PrivatePostgres, url: str, open_store: Open
) -> None:
    store = await open_store(max_connections=2, statement_timeout_s=0.2)
    await store.add(new("slug"), now=NOW)
    server.pause()
    start = time.monotonic()

    with pytest.raises(Unavailable, match=r"no answer within 1\.2 s"):
        await store.get(Slug("slug"))

    waited_s = time.monotonic() - start
    server.resume()
    recovery_s = await seconds_until(lambda: store.get(Slug("slug")))
    assert waited_s < 2
    assert recovery_s < 3


async def test_cancelled_caller_leaves_silent_server_at_once(
    server: PrivatePostgres, store: PostgresStore
) -> None:
    server.pause()
    start = time.monotonic()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await store.get(Slug("slug"))

    waited_s = time.monotonic() - start
    server.resume()
    assert waited_s < 0.5
    assert await store.get(Slug("slug")) is not None


async def test_slow_statement_is_unavailable(url: str, open_store: Open) -> None:
    store = await open_store(statement_timeout_s=0.1)
    await store.ping()
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE links")

        with pytest.raises(Unavailable, match="57014"):
            await store.get(Slug("slug"))
    assert await store.get(Slug("slug")) is None


async def test_waiters_fail_fast_when_pool_is_busy(url: str, open_store: Open) -> None:
    store = await open_store(max_connections=1, max_waiting=2, wait_timeout_s=0.05)
    await store.ping()
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE links")
        busy = asyncio.ensure_future(store.get(Slug("slug")))
        await wait_for_a_waiting_backend(url)

        answers = await asyncio.gather(*(store.ping() for _ in range(4)), return_exceptions=True)

    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert await busy is None


@pytest.mark.parametrize(
    ("obstacle", "code"),
    [
        ("ALTER DATABASE {name} SET default_transaction_read_only = on", "25006"),
        ("ALTER TABLE links RENAME TO old_links", "hopgate migrate"),
        ("ALTER TABLE links RENAME COLUMN title TO headline", "hopgate migrate"),
        ("CREATE ROLE \"{name}\"; ALTER DATABASE {name} SET role = '{name}'", "42501"),
    ],
    ids=["read only", "no table", "no column", "no right"],
)
async def test_refusing_database_is_unavailable(url: str, obstacle: str, code: str, open_store: Open) -> None:
    execute(url, obstacle.format(name=url.rpartition("/")[2]))
    store = await open_store()

    with pytest.raises(Unavailable, match=code):
        await store.add(new("other"), now=NOW)


async def test_database_without_tables_names_remedy(server: PrivatePostgres, open_store: Open) -> None:
    store = await open_store(server.create_database(migrated=False))

    with pytest.raises(Unavailable, match="hopgate migrate"):
        await store.ping()


@pytest.mark.parametrize("bad", ["postgresql://u:s3cret@[h/x", "postgresql://u:s3cret@h/x?no=1"])
async def test_unparsable_url_is_not_quoted(bad: str) -> None:
    with pytest.raises(SettingsError, match="cannot be parsed") as caught:
        await PostgresStore.open(bad)

    assert "s3cret" not in str(caught.value)


async def test_cancel_storm_mixes_up_no_answers(store: PostgresStore, url: str) -> None:
    slugs = [f"s{n}" for n in range(200)]
    await store.add(new(*slugs), now=NOW)

    for stage in range(20):
        calls = {slug: asyncio.ensure_future(store.get(Slug(slug))) for slug in slugs}
        for _ in range(stage * 3):
            await asyncio.sleep(0)
        for call in list(calls.values())[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls.values(), return_exceptions=True)

        for slug, answer in zip(slugs, answers, strict=True):
            if not isinstance(answer, asyncio.CancelledError):
                assert not isinstance(answer, BaseException | None)
                assert (answer.slug, answer.fields.long_url) == (slug, f"https://example.com/{slug}")

    await fill_pool(store)
    assert await busy_backends(url) == []


async def test_cancelled_writes_leave_no_open_transaction(store: PostgresStore, url: str) -> None:
    for stage in range(10):
        calls = [
            asyncio.ensure_future(
                store.update(Slug("slug"), new("x")[0].fields, expected_version=stage, now=NOW)
            ),
            asyncio.ensure_future(store.add(new(f"s{stage}"), now=NOW, request=REQUEST)),
            asyncio.ensure_future(store.touch([Slug("slug")])),
        ]
        await asyncio.sleep(0.0005 * stage)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    assert await busy_backends(url) == []
    assert isinstance(await store.add(new("s"), now=NOW, request=REQUEST), Added | Replayed)


async def busy_backends(url: str) -> list[tuple[Any, ...]]:
    """Return the sessions that are not idle within two seconds."""
    end = time.monotonic() + 2
    query = (
        "SELECT state, query FROM pg_stat_activity"
        " WHERE application_name = 'hopgate' AND datname = current_database() AND state <> 'idle'"
    )
    while (busy := execute(url, query)) and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return busy


async def test_outbox_row_committed_late_is_not_skipped(store: PostgresStore, url: str) -> None:
    due = "UPDATE outbox SET next_attempt_at = now() - interval '1 s'"
    with psycopg.connect(url) as late:
        late.execute("INSERT INTO outbox (slug, version, next_attempt_at) VALUES ('late', 1, now())")
        answer = await store.add(new("early"), now=NOW)
        execute(url, due)

        first = await store.take_events(limit=10, lease_s=60)
        await store.drop_events([event.id for event in first])
        late.commit()

    [second] = await store.take_events(limit=10, lease_s=60)
    assert isinstance(answer, Added)
    assert [event.change.slug for event in first] == ["slug", "early"]
    assert second.change.slug == "late"
    assert second.id < answer.events[0].id


async def test_taking_events_skips_locked_rows(store: PostgresStore, url: str) -> None:
    await store.add(new("other"), now=NOW)
    execute(url, "UPDATE outbox SET next_attempt_at = now() - interval '1 s'")
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM outbox WHERE slug = 'slug' FOR UPDATE")

        events = await store.take_events(limit=10, lease_s=60)

    assert [event.change.slug for event in events] == ["other"]


async def test_connections_have_the_application_name(store: PostgresStore, url: str) -> None:
    await store.ping()

    query = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"
    assert ("hopgate",) in execute(url, query)


def test_links_with_a_term_are_not_underestimated(server: PrivatePostgres) -> None:
    """A term of many links is found by walking the listing; if it is taken for rare, all are gathered."""
    url = server.create_database()
    fill = """
        INSERT INTO links (slug, long_url, title, tags, redirect_code, forward_query, enabled, version,
                           created_at, updated_at)
        SELECT 'l' || n, 'https://example.com/' || n, CASE WHEN n % 5 = 0 THEN 'common' ELSE 'other' END,
            '{}', 302, false, true, 1, now(), now() FROM generate_series(1, 3000) AS n
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(fill.encode())
        connection.execute(b"ANALYZE")
        [driver] = find_sql.drivers(LinkQuery(terms=("common",)))
        statement = find_sql.estimate(driver)
        row = connection.execute(statement.encode(), {"term_0": "common"}).fetchone()

    assert row is not None
    assert 400 < row[0][0]["Plan"]["Plan Rows"] < 900
