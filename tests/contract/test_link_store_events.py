"""`EventLogStore`: one suite for every adapter."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.domain.events import ClicksCounted
from app.domain.link import LinkFields, Slug
from app.domain.webhooks import EventKind, LinkEvent
from app.ports import Batch, Changed, Found, ImportedLink, LinkState, Store, Wanted
from tests.contract.store_database import Database
from tests.contract.store_links import FIELDS, FULL, LATER, NOW, added, new

SLUG = Slug("abc")
OTHER = replace(FIELDS, title="other")


async def events(store: Store, after: int = 0) -> list[LinkEvent]:
    while await store.number_events(limit=3):
        pass
    return list((await store.events_after(after, limit=1000)).events)


async def told(store: Store) -> list[tuple[str, str, int, LinkFields]]:
    return [(one.kind, one.link.slug, one.link.version, one.link.fields) for one in await events(store)]


async def updated(store: Store, wanted: LinkFields, version: int) -> None:
    outcome = await store.update(SLUG, wanted, expected_version=version, now=LATER)
    assert isinstance(outcome, Changed)


async def test_new_store_has_no_events(store: Store) -> None:
    page = await store.events_after(0, limit=10)

    assert (page.events, page.until, await store.last_event()) == ((), 0, 0)


async def test_each_change_is_an_event_with_the_link_as_it_was_by_then(store: Store) -> None:
    await added(store, SLUG)
    await updated(store, FULL, 1)
    await updated(store, OTHER, 2)
    await store.remove(SLUG, expected_version=3, now=LATER)
    await store.restore(SLUG, LinkState(OTHER, removed=False), expected_version=4, now=LATER)

    assert await told(store) == [
        ("link.created", SLUG, 1, FIELDS),
        ("link.changed", SLUG, 2, FULL),
        ("link.changed", SLUG, 3, OTHER),
        ("link.removed", SLUG, 4, OTHER),
        ("link.changed", SLUG, 5, OTHER),
    ]
    first, second, *_ = await events(store)
    assert (first.at, first.link.created_at, first.link.updated_at) == (NOW, NOW, NOW)
    assert (second.at, second.link.updated_at) == (LATER, LATER)


async def test_what_changes_no_field_is_no_event(store: Store) -> None:
    await added(store, SLUG)
    await store.touch([SLUG])
    await updated(store, FIELDS, 2)
    await store.lease_quota(SLUG)

    assert [kind for kind, *_ in await told(store)] == ["link.created"]


async def test_touched_link_has_the_state_of_its_event(store: Store) -> None:
    """The version moves on without a row of the history."""
    await added(store, SLUG)
    await store.touch([SLUG])
    await updated(store, OTHER, 2)

    assert [(version, fields) for *_, version, fields in await told(store)] == [(1, FIELDS), (3, OTHER)]


async def test_every_way_to_change_links_writes_events(store: Store) -> None:
    await added(store, SLUG, fields=replace(FIELDS, tags=("old",)))
    await store.add(new("s-1", "s-2"), now=NOW)
    imported = ImportedLink(slug=Slug("imp"), fields=FIELDS, created_at=NOW - timedelta(days=9), visits=5)
    await store.add_imported([imported], now=NOW)
    await store.retag("old", "new", limit=10, now=LATER)

    def decide(found: Found) -> Batch:
        link = found.links[Slug("s-1")]
        gone = replace(link, version=2, removed_at=LATER, updated_at=LATER)
        return Batch(changed=((gone, 1),))

    await store.write_batch(Wanted(slugs=(Slug("s-1"),), locks=True), decide, now=LATER)

    assert [(kind, slug, version) for kind, slug, version, _ in await told(store)] == [
        ("link.created", SLUG, 1),
        ("link.created", "s-1", 1),
        ("link.created", "s-2", 1),
        ("link.created", "imp", 1),
        ("link.changed", SLUG, 2),
        ("link.removed", "s-1", 2),
    ]


async def test_rejected_change_is_no_event(store: Store) -> None:
    await added(store, SLUG)
    await store.add(new(SLUG), now=NOW)
    await store.update(SLUG, OTHER, expected_version=7, now=LATER)

    assert len(await events(store)) == 1


async def test_pages_go_on_where_they_end(store: Store) -> None:
    await added(store, *(f"s-{n}" for n in range(5)))
    all_of_them = await events(store)

    page = await store.events_after(all_of_them[1].position, limit=2)

    assert page.events == tuple(all_of_them[2:4])
    assert page.until == all_of_them[3].position
    assert await store.last_event() == all_of_them[4].position
    assert len({one.uid for one in all_of_them}) == 5


async def test_concurrent_writers_and_numberers_lose_and_reorder_nothing(store: Store) -> None:
    seen: list[LinkEvent] = []
    slugs = [f"s-{n}" for n in range(8)]

    async def write(slug: str) -> None:
        await added(store, slug)
        for version in range(1, 6):
            fields = replace(FIELDS, title=str(version))
            await store.update(Slug(slug), fields, expected_version=version, now=LATER)

    async def read() -> None:
        position = 0
        while len(seen) < 48:
            await store.number_events(limit=5)
            page = await store.events_after(position, limit=4)
            seen.extend(page.events)
            position = page.until
            await asyncio.sleep(0)

    async def number() -> None:
        while len(seen) < 48:
            await store.number_events(limit=3)
            await asyncio.sleep(0)

    await asyncio.gather(read(), number(), number(), *(write(slug) for slug in slugs))

    for slug in slugs:
        assert [one.link.version for one in seen if one.link.slug == slug] == [1, 2, 3, 4, 5, 6]


async def test_link_expires_once(store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    await added(store, SLUG, "other", fields=replace(FIELDS, expires_at=soon))
    await store.remove(Slug("other"), expected_version=None, now=NOW)

    assert await store.expire_links(now=soon - timedelta(seconds=1), limit=10) == 0
    assert await store.expire_links(now=soon, limit=10) == 1
    assert await store.expire_links(now=soon + timedelta(days=9), limit=10) == 0

    [expired] = [one for one in await events(store) if one.kind is EventKind.EXPIRED]
    assert (expired.link.slug, expired.link.version, expired.at) == (SLUG, 1, soon)
    assert expired.link.updated_at == NOW


async def test_another_expiry_expires_again(store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    later = soon + timedelta(hours=1)
    await added(store, SLUG, fields=replace(FIELDS, expires_at=soon))
    await store.expire_links(now=soon, limit=10)
    await updated(store, replace(FIELDS, expires_at=soon, title="no other time"), 1)
    assert await store.expire_links(now=soon, limit=10) == 0
    await updated(store, replace(FIELDS, expires_at=later), 2)

    assert await store.expire_links(now=soon, limit=10) == 0
    assert await store.expire_links(now=later, limit=10) == 1
    await updated(store, FIELDS, 3)
    expired = [one.link.version for one in await events(store) if one.kind is EventKind.EXPIRED]
    assert expired == [1, 3]


async def test_expiry_that_is_taken_back_is_no_event(store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    await added(store, SLUG, fields=replace(FIELDS, expires_at=soon))
    await updated(store, FIELDS, 1)

    assert await store.expire_links(now=soon, limit=10) == 0


async def test_last_visit_of_a_quota_is_one_event(store: Store) -> None:
    await added(store, SLUG, fields=replace(FIELDS, max_visits=2))
    while await store.lease_quota(SLUG):
        pass
    await store.return_quota(SLUG, 1, 1)
    await store.lease_quota(SLUG)
    kinds = [one.kind for one in await events(store)]
    assert kinds == [EventKind.CREATED, EventKind.LIMIT_REACHED]

    await updated(store, replace(FIELDS, max_visits=3), 1)
    await store.lease_quota(SLUG)
    reached = [one for one in await events(store) if one.kind is EventKind.LIMIT_REACHED]
    assert [(one.link.version, one.link.fields.max_visits) for one in reached] == [(1, 2), (2, 3)]


async def test_limit_below_what_was_visited_is_reached_at_once(store: Store) -> None:
    await added(store, SLUG, fields=replace(FIELDS, max_visits=100))
    await store.lease_quota(SLUG)
    await updated(store, replace(FIELDS, max_visits=2), 1)

    kinds = {one.kind for one in await events(store)}
    assert kinds == {EventKind.CREATED, EventKind.CHANGED, EventKind.LIMIT_REACHED}


async def test_first_visit_is_one_event(store: Store) -> None:
    imported = ImportedLink(slug=Slug("imp"), fields=FIELDS, created_at=NOW, visits=5)
    await store.add_imported([imported], now=NOW)
    await added(store, SLUG)

    for batch in ("b-1", "b-1", "b-2"):
        clicks = {SLUG: 2, Slug("imp"): 1, Slug("unknown"): 1}
        await store.add_clicks(
            ClicksCounted(batch, NOW.replace(minute=0, second=0, microsecond=0), clicks), now=LATER
        )

    visited = [one for one in await events(store) if one.kind is EventKind.FIRST_VISIT]
    assert [(one.link.slug, one.link.version, one.at) for one in visited] == [(SLUG, 1, LATER)]
    assert visited[0].link.visits == 4


async def test_old_events_are_forgotten(store: Store, database: Database) -> None:
    await added(store, "s-1", "s-2", "s-3")
    all_of_them = await events(store)

    assert await store.forget_events(before=NOW, limit=10) == 0
    assert await store.forget_events(before=LATER, limit=1) == 1
    assert await store.forget_events(before=LATER, limit=10) == 1

    assert await events(store) == all_of_them[2:], "the latest one stays"


async def test_event_of_a_deleted_link_is_left_out(store: Store, database: Database) -> None:
    await added(store, "s-1", "s-2")
    last = (await events(store))[-1].position
    database.execute("DELETE FROM links")

    page = await store.events_after(0, limit=10)

    assert (page.events, page.until) == ((), last)
