"""`OutboxStore`, on every adapter: events are leased, leased again and dropped."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta

from app.concurrency.origins import on_behalf_of
from app.domain.events import LinkChanged
from app.domain.link import Slug
from app.domain.origin import Origin
from app.ports import Added, Changed, IdempotentRequest, OutboxDepth, Store
from tests.contract.store_database import Database, SqliteDatabase
from tests.contract.store_links import FIELDS, NOW, added, changes, new


async def test_events_are_due_after_the_grace(store: Store, database: Database) -> None:
    await added(store, "slug")

    early = await store.take_events(limit=10, lease_s=60)
    database.make_events_due()
    due = await store.take_events(limit=10, lease_s=60)

    assert early == []
    assert [event.change for event in due] == [LinkChanged(Slug("slug"), 1)]


async def test_event_knows_when_its_change_was_committed(store: Store, database: Database) -> None:
    before = time.time()
    await added(store, "slug")
    database.make_events_due()

    [event] = await store.take_events(limit=10, lease_s=60)

    assert event.change.committed_at is not None
    assert before - 60 < event.change.committed_at < time.time() + 60


async def test_grace_is_two_seconds_of_database_clock(store: Store, database: Database) -> None:
    await added(store, "slug")

    [(grace,)] = database.execute("SELECT next_attempt_at - created_at FROM outbox")

    assert grace in (timedelta(seconds=2), 2_000_000)


async def test_leased_event_is_not_given_twice(store: Store, database: Database) -> None:
    other = await database.open()
    await added(store, *(f"s{n}" for n in range(100)))
    database.make_events_due()

    batches = await asyncio.gather(*(s.take_events(limit=7, lease_s=60) for s in (store, other) * 10))
    rest = await other.take_events(limit=100, lease_s=60)

    taken = Counter(event.id for batch in [*batches, rest] for event in batch)
    assert len(taken) == 100
    assert set(taken.values()) == {1}
    assert max(len(batch) for batch in batches) == 7
    await other.aclose()


async def test_event_is_due_when_its_lease_ends(store: Store, database: Database) -> None:
    await added(store, "slug")
    database.make_events_due()

    [first] = await store.take_events(limit=10, lease_s=0)
    async with asyncio.timeout(5):
        while not (again := await store.take_events(limit=10, lease_s=60)):
            await asyncio.sleep(0.001)

    assert again == [first]
    assert database.execute("SELECT attempts FROM outbox") == [(2,)]


async def test_dropped_events_are_gone_unknown_ids_ignored(store: Store, database: Database) -> None:
    answer = await store.add(new("one", "two"), now=NOW)
    assert isinstance(answer, Added)

    await store.drop_events([answer.events[0].id, 10**12, answer.events[0].id])
    await store.drop_events([])

    assert await changes(store, database) == Counter([("two", 1)])


async def test_event_ids_are_stable(store: Store, database: Database) -> None:
    answer = await store.add(new("b", "a"), now=NOW)
    database.make_events_due()

    taken = await store.take_events(limit=10, lease_s=60)

    assert isinstance(answer, Added)
    assert set(taken) == set(answer.events)


async def test_depth_counts_rows_and_oldest_age(store: Store, database: Database) -> None:
    assert await store.outbox_depth() == OutboxDepth(0, 0.0)
    await added(store, "one", "two")
    database.make_events_due()
    await store.take_events(limit=1, lease_s=60)

    depth = await store.outbox_depth()

    assert depth.rows == 2
    assert 0 <= depth.oldest_s < 30


async def test_depth_tells_a_backlog_from_a_stall(store: Store, database: Database) -> None:
    """Rows that are leased and not confirmed have not moved; fewer rows, or another first row, have."""
    answer = await store.add(new("one", "two"), now=NOW)
    assert isinstance(answer, Added)
    before = await store.outbox_depth()
    database.make_events_due()
    await store.take_events(limit=10, lease_s=60)
    await added(store, "three")
    waiting = await store.outbox_depth()
    await store.drop_events([min(event.id for event in answer.events)])
    await added(store, "four", "five")
    growing = await store.outbox_depth()

    assert before.first_id == min(event.id for event in answer.events)
    assert not waiting.has_moved(before)
    assert growing.rows > waiting.rows
    assert growing.has_moved(waiting)


async def test_events_survive_a_clock_that_was_set_back(store: Store, database: Database) -> None:
    """Their due times lie in the future by as much as the clock was set back."""
    await added(store, "slug")
    is_sqlite = isinstance(database, SqliteDatabase)
    step = "3600000000" if is_sqlite else "interval '1 hour'"
    database.execute(
        f"UPDATE outbox SET next_attempt_at = next_attempt_at + {step}, created_at = created_at + {step}"
    )

    depth = await store.outbox_depth()
    due = await store.take_events(limit=10, lease_s=2)

    assert depth.rows == 1
    assert depth.oldest_s > 3500
    assert [event.change for event in due] == [LinkChanged(Slug("slug"), 1)]
    assert await store.take_events(limit=10, lease_s=2) == []


async def test_change_keeps_the_request_that_it_comes_from(store: Store, database: Database) -> None:
    """Of creates that share a statement, each its own; of what is not recorded, none."""
    first, second = (Origin(7, n, at=1.5, tracestate="a=1", baggage="b=2") for n in (1, 2))

    async def create(slug: str, origin: Origin | None) -> None:
        with on_behalf_of([origin]):
            await added(store, slug)

    await asyncio.gather(create("a", first), create("b", second), create("c", None))
    request = IdempotentRequest(scope="s", key="k", fingerprint=b"f")
    with on_behalf_of([second]):
        outcome = await store.add(new("d"), now=NOW, request=request)
        assert isinstance(outcome, Added)
        touched = await store.touch([Slug("c")])
        changed = await store.update(Slug("a"), FIELDS, expected_version=1, now=NOW)
        assert isinstance(changed, Changed)
        removed = await store.remove(Slug("b"), expected_version=1, now=NOW)
        assert isinstance(removed, Changed)
    database.make_events_due()

    taken = await store.take_events(limit=10, lease_s=60)

    assert {(event.change.slug, event.change.version): event.change.origin for event in taken} == {
        ("a", 1): first,
        ("b", 1): second,
        ("c", 1): None,
        ("d", 1): second,
        ("c", 2): second,
        ("a", 2): second,
        ("b", 2): second,
    }
    returned = [*outcome.events, *(change.event for change in [*touched, changed, removed])]
    assert {event.change.origin for event in returned} == {second}


async def test_work_for_several_requests_has_no_single_one(store: Store, database: Database) -> None:
    with on_behalf_of([Origin(7, 1, at=1.5), Origin(7, 2, at=1.5)]):
        await added(store, "slug")
    database.make_events_due()

    [taken] = await store.take_events(limit=10, lease_s=60)

    assert taken.change.origin is None


async def test_earlier_release_writes_rows_without_an_origin(store: Store, database: Database) -> None:
    """Old gateways go on beside new workers."""
    await added(store, "slug")
    database.execute("UPDATE outbox SET origin = NULL")
    database.make_events_due()

    [taken] = await store.take_events(limit=10, lease_s=60)

    assert taken.change.origin is None
