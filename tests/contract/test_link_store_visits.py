"""`VisitStore`: visits add up exactly by value, each batch once, with a bound on the values."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from app.adapters.postgres.visits import FORGET_COUNTS, KINDS
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import (
    ALL_LINKS,
    MAX_DAY_VALUES,
    MAX_VALUES,
    OTHER,
    Counts,
    Dimension,
    LinkVisits,
    ValueVisits,
)
from app.ports import PeriodVisits, Store
from tests.contract.store_links import NOW
from tests.servers.postgres import PrivatePostgres

HOUR = datetime(2030, 1, 31, 12, tzinfo=UTC)
DAY = date(2030, 1, 31)
A, B = Slug("aaa"), Slug("bbb")
BROWSER, OS = Dimension.BROWSER, Dimension.OS


def described(
    n: int, counts: Counts, *, visitors: tuple[int, ...] = (), hour: datetime = HOUR, slug: Slug = A
) -> VisitsDescribed:
    return VisitsDescribed(f"{n:032x}", hour, {slug: LinkVisits(counts, visitors)})


def listed(held: bytes | None, visitors: Collection[int]) -> bytes:
    """A sketch that is the list of its visitors."""
    known = {int(one) for one in (held or b"").split()}
    return b" ".join(b"%d" % one for one in sorted(known | set(visitors)))


async def add(store: Store, one: VisitsDescribed) -> bool:
    return await store.add_visits([one], now=NOW, merge=listed) == 0


async def values(store: Store, slug: Slug = A, limit: int = 10) -> list[tuple[Dimension, str, int]]:
    day = timedelta(days=1)
    found = await store.visit_values(slug, since=HOUR - day, until=HOUR + day, limit=limit)
    assert all(isinstance(one, ValueVisits) for one in found)
    return [(one.dimension, one.value, one.visits) for one in found]


async def test_visits_add_up_by_value(store: Store) -> None:
    assert await add(store, described(1, {BROWSER: {"Firefox": 2, "Chrome": 5}, OS: {"Linux": 7}}))
    assert await add(store, described(2, {BROWSER: {"Firefox": 4}}))
    later = HOUR + timedelta(hours=3)
    assert await add(store, described(3, {BROWSER: {"Safari": 1}}, hour=later))
    assert await add(store, described(4, {BROWSER: {"Edge": 9}}, slug=B))

    assert await values(store) == [
        (BROWSER, "Firefox", 6),
        (BROWSER, "Chrome", 5),
        (BROWSER, "Safari", 1),
        (OS, "Linux", 7),
    ]


async def test_described_batch_counts_once(store: Store) -> None:
    one = described(1, {BROWSER: {"Firefox": 2}}, visitors=(1, 2))

    answers = await asyncio.gather(*(add(store, one) for _ in range(10)))

    assert sum(answers) == 1
    assert await values(store) == [(BROWSER, "Firefox", 2)]


async def test_hours_of_visits_are_within_the_range(store: Store) -> None:
    for n in range(4):
        hour = HOUR + timedelta(hours=n)
        await add(store, described(n, {BROWSER: {"Firefox": 10**n}}, hour=hour))

    found = await store.visit_values(
        A, since=HOUR + timedelta(hours=1), until=HOUR + timedelta(hours=3), limit=5
    )

    assert list(found) == [ValueVisits(BROWSER, "Firefox", 110)]


async def test_values_beyond_the_limit_are_other(store: Store) -> None:
    counts = {BROWSER: {f"b{n}": n + 1 for n in range(6)}, OS: {"Linux": 3, OTHER: 2}}
    await add(store, described(1, counts))

    assert await values(store, limit=2) == [
        (BROWSER, "b5", 6),
        (BROWSER, "b4", 5),
        (BROWSER, OTHER, 10),
        (OS, "Linux", 3),
        (OS, OTHER, 2),
    ]


async def test_values_of_an_hour_are_bounded(store: Store) -> None:
    first = {f"b{n}": 1 for n in range(MAX_VALUES - 1)}
    await add(store, described(1, {BROWSER: first, OS: {"Linux": 1}}))
    # Two are new, and there is room for one: the one with more visits.
    await add(store, described(2, {BROWSER: {"b0": 1, "rare": 1, "often": 3}, OS: {"Hurd": 1}}))
    await add(store, described(3, {BROWSER: {"rare": 1, "often": 1, "b1": 1}}))

    found = await values(store, limit=1000)

    browsers = {value: visits for dimension, value, visits in found if dimension is BROWSER}
    assert len(browsers) == MAX_VALUES + 1
    assert (browsers["often"], browsers[OTHER], browsers["b0"], browsers["b1"]) == (4, 2, 2, 2)
    assert "rare" not in browsers
    assert sum(browsers.values()) == MAX_VALUES - 1 + 5 + 3
    assert [one[1:] for one in found if one[0] is OS] == [("Hurd", 1), ("Linux", 1)]


async def test_all_links_are_counted_together(store: Store) -> None:
    await add(store, described(1, {BROWSER: {"Firefox": 2}}, visitors=(1, 2)))
    await add(store, described(2, {BROWSER: {"Firefox": 1, "Edge": 1}}, visitors=(2, 3), slug=B))

    assert await values(store, ALL_LINKS) == [(BROWSER, "Firefox", 3), (BROWSER, "Edge", 1)]
    assert list(await store.visitor_sketches(ALL_LINKS, first=DAY, last=DAY)) == [b"1 2 3"]


async def test_batches_are_added_together_each_once(store: Store) -> None:
    first = described(1, {BROWSER: {"Firefox": 1}}, visitors=(1,))
    later = described(3, {BROWSER: {"Edge": 8}}, visitors=(3,), hour=HOUR + timedelta(days=1))
    await add(store, first)

    given = [first, described(2, {BROWSER: {"Firefox": 2}}, visitors=(2,), slug=B), later, later]
    known = await store.add_visits(given, now=NOW, merge=listed)

    assert known == 2
    assert await values(store) == [(BROWSER, "Firefox", 1)]
    assert await values(store, ALL_LINKS) == [(BROWSER, "Firefox", 3)]
    hour = {"since": later.hour, "until": later.hour + timedelta(hours=1)}
    assert list(await store.visit_values(A, **hour, limit=5)) == [ValueVisits(BROWSER, "Edge", 8)]
    days = {"first": DAY, "last": DAY + timedelta(days=1)}
    assert sorted(await store.visitor_sketches(ALL_LINKS, **days)) == [b"1 2", b"3"]


async def test_batches_that_fail_together_are_added_later(store: Store) -> None:
    given = [described(n, {BROWSER: {"Firefox": 1}}, visitors=(n,)) for n in range(3)]

    def broken(held: bytes | None, visitors: Collection[int]) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.add_visits(given, now=NOW, merge=broken)

    assert await values(store) == await values(store, ALL_LINKS) == []
    assert await store.add_visits(given, now=NOW, merge=listed) == 0
    assert await values(store) == [(BROWSER, "Firefox", 3)]


async def test_values_of_several_batches_are_bounded_together(store: Store) -> None:
    given = [described(n, {BROWSER: {f"b{n % 150}": 1 + n % 2, OTHER: 1}}) for n in range(300)]

    await asyncio.gather(*(store.add_visits(given[n::3], now=NOW, merge=listed) for n in range(3)))

    found = [(value, visits) for _, value, visits in await values(store, limit=1000)]
    assert len(found) == MAX_VALUES + 1
    assert sum(visits for _, visits in found) == 300 + 450


async def test_visitors_of_a_day_share_a_sketch(store: Store) -> None:
    await add(store, described(1, {BROWSER: {"Firefox": 1}}, visitors=(1, 2)))
    await add(store, described(2, {BROWSER: {"Firefox": 1}}, visitors=(2, 3)))
    tomorrow = HOUR + timedelta(days=1)
    await add(store, described(3, {BROWSER: {"Firefox": 1}}, visitors=(9,), hour=tomorrow))

    one = await store.visitor_sketches(A, first=DAY, last=DAY)
    both = await store.visitor_sketches(A, first=DAY, last=DAY + timedelta(days=1))

    assert list(one) == [b"1 2 3"]
    assert sorted(both) == [b"1 2 3", b"9"]
    assert await store.visitor_sketches(B, first=DAY, last=DAY) == []


async def test_concurrent_batches_lose_no_visitor(store: Store) -> None:
    batches = [described(n, {BROWSER: {"Firefox": 1, f"b{n}": 1}}, visitors=(n, n + 100)) for n in range(12)]

    assert all(await asyncio.gather(*(add(store, one) for one in batches)))

    [sketch] = await store.visitor_sketches(A, first=DAY, last=DAY)
    assert len(sketch.split()) == 24
    assert (BROWSER, "Firefox", 12) in await values(store)


async def test_key_of_a_day_is_the_first_one(store: Store) -> None:
    keys = await asyncio.gather(*(store.visitor_key(DAY, bytes([n]) * 32) for n in range(5)))
    later = await store.visitor_key(DAY, b"x" * 32)
    other = await store.visitor_key(DAY + timedelta(days=1), b"y" * 32)

    assert {*keys, later} == {keys[0]}
    assert other == b"y" * 32

    await store.forget_visitor_keys(before=DAY + timedelta(days=1))
    assert await store.visitor_key(DAY, b"z" * 32) == b"z" * 32
    assert await store.visitor_key(DAY + timedelta(days=1), b"z" * 32) == b"y" * 32


async def test_old_visits_are_forgotten(store: Store) -> None:
    for n in range(3):
        hour = HOUR + timedelta(days=n)
        await add(store, described(n, {BROWSER: {"Firefox": 1}}, visitors=(n,), hour=hour))

    end = HOUR + timedelta(days=2)
    forgotten = [await store.forget_visits(before=end, limit=2) for _ in range(4)]

    assert forgotten == [4, 4, 4, 0]
    assert list(await store.visit_values(A, since=HOUR, until=HOUR + timedelta(days=9), limit=5)) == [
        ValueVisits(BROWSER, "Firefox", 1)
    ]
    assert len(await store.visitor_sketches(A, first=DAY, last=DAY + timedelta(days=9))) == 1


async def test_visits_by_hour_and_kind(store: Store) -> None:
    kind = Dimension.KIND
    await add(store, described(1, {kind: {"person": 2, "bot": 1}, BROWSER: {"Firefox": 2}}))
    await add(store, described(2, {kind: {"person": 3}}, hour=HOUR + timedelta(hours=2)))
    await add(store, described(3, {kind: {"person": 9}}, hour=HOUR + timedelta(hours=3)))
    await add(store, described(4, {kind: {"person": 9}}, slug=B))

    starts = [HOUR, HOUR + timedelta(hours=1), HOUR + timedelta(hours=2)]
    found = await store.visit_kinds(A, starts=starts, until=HOUR + timedelta(hours=3))

    assert list(found) == [
        PeriodVisits(HOUR, "bot", 1),
        PeriodVisits(HOUR, "person", 2),
        PeriodVisits(HOUR + timedelta(hours=2), "person", 3),
    ]
    begin = HOUR - timedelta(days=15)
    assert [
        one.visits for one in await store.visit_kinds(A, starts=[begin], until=begin + timedelta(days=31))
    ] == [1, 14]


# --- days of all links -------------------------------------------------------------------


async def rolled_up(store: Store, *, since: datetime, until: datetime) -> int:
    days = 0
    while await store.roll_up_visits(since=since, until=until):
        days += 1
    return days


async def test_days_add_up_to_the_same_as_their_hours(store: Store) -> None:
    begin = HOUR.replace(hour=0) - timedelta(days=3)
    for n, hour in enumerate((-1, 0, 5, 23, 24, 47, 49, 71, 72, 75)):
        counts = {BROWSER: {f"b{n % 4}": n + 1, OTHER: 1}, Dimension.KIND: {"person": n + 2}}
        await add(store, described(n, counts, hour=begin + timedelta(hours=hour), slug=(A, B)[n % 2]))
    ranges = [
        (begin + timedelta(hours=first), begin + timedelta(hours=last))
        for first, last in (
            (-24, 96),
            (0, 24),
            (0, 72),
            (1, 72),
            (0, 71),
            (5, 6),
            (20, 60),
            (25, 47),
            (72, 96),
        )
    ]

    async def answers() -> list[list[ValueVisits]]:
        return [
            list(await store.visit_values(ALL_LINKS, since=since, until=until, limit=limit))
            for since, until in ranges
            for limit in (1, 9)
        ]

    cuts = (0, 1, 12, 13, 23)

    async def parts() -> list[list[PeriodVisits]]:
        """The visits of each range, whole, by days that begin at several hours, and by the hour."""
        found = []
        for since, until in ranges:
            hours = [since + n * timedelta(hours=1) for n in range((until - since) // timedelta(hours=1))]
            of_cuts = [[since, *(one for one in hours[1:] if one.hour == cut)] for cut in cuts]
            found += [
                list(await store.visit_kinds(ALL_LINKS, starts=starts, until=until))
                for starts in ([since], hours, *of_cuts)
            ]
        return found

    before_parts = await parts()
    before = await answers()
    assert await rolled_up(store, since=begin, until=begin + timedelta(hours=71)) == 2
    assert await answers() == before
    assert await rolled_up(store, since=begin, until=begin + timedelta(hours=72)) == 1
    assert await answers() == before
    assert await parts() == before_parts

    # What arrives late counts in its day as well.
    late = described(99, {BROWSER: {"late": 50, "b1": 7}}, hour=begin + timedelta(hours=30))
    await add(store, late)
    day = {"since": begin + timedelta(hours=24), "until": begin + timedelta(hours=48)}
    found = await store.visit_values(ALL_LINKS, **day, limit=9)
    assert [one.visits for one in found if one.value in {"late", "b1"}] == [50, 13]
    assert list(found) == list(await store.visit_values(ALL_LINKS, **day, limit=900))


async def test_values_of_a_day_are_bounded(store: Store) -> None:
    begin = HOUR.replace(hour=0)
    for hour in range(5):
        counts = {BROWSER: {f"b{hour} {n:02}": 1 + (n == hour) for n in range(MAX_VALUES)}}
        await add(store, described(hour, counts, hour=begin + timedelta(hours=hour)))
    day = {"since": begin, "until": begin + timedelta(days=1)}

    assert await rolled_up(store, **day) == 1

    found = {one.value: one.visits for one in await store.visit_values(ALL_LINKS, **day, limit=1000)}
    assert len(found) == MAX_DAY_VALUES + 1
    assert sum(found.values()) == 5 * (MAX_VALUES + 1)
    assert {f"b{hour} {hour:02}": 2 for hour in range(5)}.items() <= found.items()
    await add(store, described(9, {BROWSER: {"late": 1}}, hour=begin))
    found = {one.value: one.visits for one in await store.visit_values(ALL_LINKS, **day, limit=1000)}
    assert len(found) == MAX_DAY_VALUES + 1
    assert sum(found.values()) == 5 * (MAX_VALUES + 1) + 1


async def test_day_that_is_partly_forgotten_has_its_other_hours(store: Store) -> None:
    begin = HOUR.replace(hour=0)
    for n in range(4):
        await add(store, described(n, {BROWSER: {"Firefox": 10**n}}, hour=begin + timedelta(hours=6 * n)))
    day = {"since": begin, "until": begin + timedelta(days=1)}
    assert await rolled_up(store, **day) == 1

    end = begin + timedelta(hours=12)
    while await store.forget_visits(before=end, limit=100):
        pass

    assert await rolled_up(store, since=end, until=begin + timedelta(days=9)) == 0
    found = await store.visit_values(ALL_LINKS, **day, limit=9)
    assert list(found) == [ValueVisits(BROWSER, "Firefox", 1100)]


@pytest.mark.services
def test_old_visits_are_found_by_their_index(postgres: PrivatePostgres) -> None:
    """In blocks that were used again, any other way reads them all; no look-up of a link takes this one."""
    with psycopg.connect(postgres.create_database(), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO visit_counts (slug, hour, dimension, value, visits)"
            " SELECT 's' || s, timestamptz '2030-01-01 00:00Z' + interval '1 hour' * h, 'kind', 'person', 1"
            " FROM generate_series(1, 200) AS s, generate_series(1, 100) AS h ORDER BY random()"
        )
        connection.execute("ANALYZE visit_counts")
        before = {"before": datetime(2030, 1, 1, 3, tzinfo=UTC), "limit": 100}
        of_link = {"slug": "s7", "hours": "[526069]"}

        plans = [
            str(connection.execute(f"EXPLAIN {statement}".encode(), given).fetchall())
            for statement, given in ((FORGET_COUNTS, before), (KINDS, of_link))
        ]

    assert ["visit_counts_utc" in plan for plan in plans] == [True, False]
    assert "visit_counts_pkey" in plans[1]
