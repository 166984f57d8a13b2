"""`ClickStore`: clicks add up exactly, each batch once, and change no link."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

from app.domain.events import ClicksCounted
from app.domain.link import Slug
from app.ports import Changed, Replayed, Store, Totals
from tests.contract.store_database import Database
from tests.contract.store_links import NOW, REQUEST, added, changes, new

HOUR = datetime(2030, 1, 31, 12, tzinfo=UTC)
A, B = Slug("aaa"), Slug("bbb")


def batch(n: int, hour: datetime = HOUR, **clicks: int) -> ClicksCounted:
    return ClicksCounted(f"{n:032x}", hour, {Slug(slug): count for slug, count in clicks.items()})


async def visits(store: Store, slug: Slug) -> int:
    link = await store.get(slug)
    assert link is not None
    return link.visits


async def hours(store: Store, slug: Slug) -> dict[datetime, int]:
    return dict(
        await store.hourly_clicks(slug, since=HOUR - timedelta(days=9), until=HOUR + timedelta(days=9))
    )


async def test_clicks_add_up_in_total_and_hourly(store: Store) -> None:
    await added(store, A, B)
    later = HOUR + timedelta(hours=1)

    assert await store.add_clicks(batch(1, aaa=2, bbb=1), now=NOW)
    assert await store.add_clicks(batch(2, aaa=3), now=NOW)
    assert await store.add_clicks(batch(3, later, aaa=10), now=NOW)

    assert [await visits(store, slug) for slug in (A, B)] == [15, 1]
    assert await hours(store, A) == {HOUR: 5, later: 10}
    assert await hours(store, B) == {HOUR: 1}


async def test_batch_counts_once(store: Store) -> None:
    await added(store, A)

    first = await store.add_clicks(batch(1, aaa=2), now=NOW)
    again = await store.add_clicks(batch(1, aaa=2), now=NOW)

    assert (first, again) == (True, False)
    assert await visits(store, A) == 2
    assert await hours(store, A) == {HOUR: 2}


async def test_concurrent_copies_of_a_batch_count_once(store: Store) -> None:
    await added(store, A)

    answers = await asyncio.gather(*(store.add_clicks(batch(1, aaa=2), now=NOW) for _ in range(20)))

    assert sum(answers) == 1
    assert await visits(store, A) == 2


async def test_concurrent_batches_of_same_slugs_add_up(store: Store) -> None:
    slugs = [f"s{n:03}" for n in range(200)]
    await added(store, *map(Slug, slugs))
    orders = (slugs, slugs[::-1])

    answers = await asyncio.gather(
        *(store.add_clicks(batch(n, HOUR, **dict.fromkeys(orders[n % 2], 1)), now=NOW) for n in range(16))
    )

    assert all(answers)
    assert [await hours(store, Slug(slug)) for slug in slugs] == [{HOUR: 16}] * 200


async def test_counting_changes_no_link(store: Store, database: Database) -> None:
    [link] = await added(store, A)
    await changes(store, database)

    await store.add_clicks(batch(1, aaa=2), now=NOW)

    counted = await store.get(A)
    assert counted is not None
    assert (counted.version, counted.updated_at) == (link.version, link.updated_at)
    assert (await store.outbox_depth()).rows == 1  # of the new link


async def test_every_read_shows_the_click_total(store: Store) -> None:
    await store.add(new(A), now=NOW, request=REQUEST)
    await store.add_clicks(batch(1, aaa=7), now=NOW)

    page = await store.page(after=None, limit=5)
    many = await store.get_many([A])
    replayed = await store.add(new(A), now=NOW, request=REQUEST)
    [touched] = await store.touch([A])
    removed = await store.remove(A, expected_version=None, now=NOW)

    assert isinstance(replayed, Replayed)
    assert isinstance(removed, Changed)
    links = [*page.links, many[A], *replayed.links, touched.link, removed.link]
    assert [link.visits for link in links] == [7] * 5


async def test_clicks_without_a_link_are_left_out(store: Store) -> None:
    """As those of a link that a restored backup has not: the next link of the slug would begin with them."""
    await added(store, A)

    assert await store.add_clicks(batch(1, aaa=2, bbb=3), now=NOW)

    assert await store.totals(limit_s=5) == Totals(1, 2)
    await added(store, B)
    assert [await visits(store, slug) for slug in (A, B)] == [2, 0]
    assert await hours(store, B) == {}
    assert await store.totals(limit_s=5) == Totals(2, 2)


async def test_clicks_of_a_removed_link_are_of_no_total(store: Store) -> None:
    await added(store, A, B)
    await store.add_clicks(batch(1, aaa=2, bbb=3), now=NOW)

    await store.remove(B, expected_version=None, now=NOW)

    assert await store.totals(limit_s=5) == Totals(1, 2)


async def test_hours_are_within_the_range(store: Store) -> None:
    await added(store, A)
    for n in range(5):
        await store.add_clicks(batch(n, HOUR + timedelta(hours=n), aaa=n + 1), now=NOW)

    found = await store.hourly_clicks(A, since=HOUR + timedelta(hours=1), until=HOUR + timedelta(hours=3))

    assert found == {HOUR + timedelta(hours=1): 2, HOUR + timedelta(hours=2): 3}
    assert all(hour.utcoffset() == timedelta(0) for hour in found)


async def test_forgotten_batches_keep_their_clicks(store: Store) -> None:
    await added(store, A)
    for n in range(3):
        await store.add_clicks(batch(n, aaa=1), now=NOW + timedelta(hours=n))

    assert await store.forget_batches(before=NOW + timedelta(hours=1)) == 1
    assert await visits(store, A) == 3
    again = Counter([await store.add_clicks(batch(n, aaa=1), now=NOW) for n in range(3)])
    assert again == Counter({True: 1, False: 2})
