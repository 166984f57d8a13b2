"""`VisitStore`: visits of a domain and of a tag add up as those of all links do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from app.adapters import visit_rows
from app.domain.events import VisitsDescribed
from app.domain.link import LinkFields, NewLink, Slug
from app.domain.link_key import key_of
from app.domain.visits import (
    ALL_LINKS,
    Dimension,
    LinkVisits,
    ValueVisits,
    total_of_domain,
    total_of_tag,
)
from app.ports import Store
from tests.contract.store_links import NOW
from tests.contract.test_link_store_visits import DAY, HOUR, A, B, listed, rolled_up

OTHER_DOMAIN = key_of(7, "aaa")
OWN, OTHER = total_of_domain(0), total_of_domain(7)
SPRING, SALE = total_of_tag("spring"), total_of_tag("sale")
TOTALS = (ALL_LINKS, OWN, OTHER, SPRING, SALE)
BROWSER = Dimension.BROWSER
HOUR_S = timedelta(hours=1)


async def make(store: Store) -> None:
    for slug, tags in ((A, ("spring", "sale")), (B, ()), (OTHER_DOMAIN, ("spring",))):
        fields = LinkFields(long_url="https://example.com/", tags=tags)
        await store.add([NewLink(slug=slug, fields=fields)], now=NOW)


async def add(store: Store, n: int, visits: dict[Slug, int], hour=HOUR) -> None:
    of_links = {
        slug: LinkVisits({BROWSER: {"Firefox": count}, Dimension.KIND: {"person": count}}, (n, len(slug)))
        for slug, count in visits.items()
    }
    await store.add_visits([VisitsDescribed(f"{n:032x}", hour, of_links)], now=NOW, merge=listed)


async def sums(store: Store, **hours) -> list[int]:
    """The visits of each of TOTALS."""
    found = [await store.visit_values(total, **hours, limit=5) for total in TOTALS]
    return [sum(one.visits for one in values if one.dimension is BROWSER) for values in found]


async def test_totals_of_domains_and_tags(store: Store) -> None:
    await make(store)
    await add(store, 1, {A: 1, B: 20, OTHER_DOMAIN: 300})
    await add(store, 2, {A: 4000})
    hour: dict[str, Any] = {"since": HOUR, "until": HOUR + HOUR_S}

    assert await sums(store, **hour) == [4321, 4021, 300, 4301, 4001]
    assert list(await store.visit_values(OTHER, **hour, limit=5)) == [
        ValueVisits(BROWSER, "Firefox", 300),
        ValueVisits(Dimension.KIND, "person", 300),
    ]
    [one] = await store.visit_kinds(SPRING, starts=[HOUR], until=HOUR + HOUR_S)
    assert (one.kind, one.visits) == ("person", 4301)
    sketches = [await store.visitor_sketches(total, first=DAY, last=DAY) for total in TOTALS]
    assert [list(one) for one in sketches] == [[b"1 2 3 6"], [b"1 2 3"], [b"1 6"], [b"1 2 3 6"], [b"1 2 3"]]


async def test_days_of_totals_add_up_to_the_same_as_their_hours(store: Store) -> None:
    await make(store)
    begin = HOUR.replace(hour=0)
    for n, hour in enumerate((0, 5, 23, 24, 30)):
        await add(store, n, {A: 1 + n, OTHER_DOMAIN: 10 * (n + 1)}, begin + hour * HOUR_S)
    ranges: list[dict[str, Any]] = [
        {"since": begin + first * HOUR_S, "until": begin + last * HOUR_S}
        for first, last in ((0, 24), (0, 48), (5, 48), (0, 30), (1, 6))
    ]
    before = [await sums(store, **hours) for hours in ranges]

    assert await rolled_up(store, since=begin, until=begin + 48 * HOUR_S) == 2

    assert [await sums(store, **hours) for hours in ranges] == before
    found = [await store.visit_kinds(total, starts=[begin], until=begin + 48 * HOUR_S) for total in TOTALS]
    assert [sum(one.visits for one in periods) for periods in found] == before[1]
    # What arrives late counts in its day, also in a total that the day did not have.
    await add(store, 9, {A: 7, B: 100}, begin + 6 * HOUR_S)
    assert await sums(store, **ranges[0]) == [
        a + b for a, b in zip(before[0], (107, 107, 0, 7, 7), strict=True)
    ]
    await add(store, 10, {B: 100}, begin - HOUR_S)
    assert await rolled_up(store, since=begin - 24 * HOUR_S, until=begin) == 1
    await add(store, 11, {A: 3}, begin - HOUR_S)
    day_before = {"since": begin - 24 * HOUR_S, "until": begin}
    assert await sums(store, **day_before) == [103, 103, 0, 3, 3]


async def test_many_totals_of_a_day_are_added_up_by_parts(store: Store) -> None:
    begin, links = HOUR.replace(hour=0), visit_rows.TOTALS_AT_A_TIME
    tags = [f"t{n}" for n in range(links)]
    for n in range(0, links, 20):
        fields = LinkFields(long_url="https://example.com/", tags=tuple(tags[n : n + 20]))
        await store.add([NewLink(slug=Slug(f"link{n}"), fields=fields)], now=NOW)
    visited = {Slug(f"link{n}"): 1 for n in range(0, links, 20)}
    await add(store, 1, visited, begin)

    calls = await rolled_up(store, since=begin, until=begin + 24 * HOUR_S)

    assert calls == 2
    for total in (ALL_LINKS, OWN, *map(total_of_tag, tags)):
        [one] = await store.visit_kinds(total, starts=[begin], until=begin + 24 * HOUR_S)
        assert one.visits == (len(visited) if total in {ALL_LINKS, OWN} else 1)


async def test_tags_count_as_they_are_at_that_time(store: Store) -> None:
    await make(store)
    await add(store, 1, {A: 1})
    await store.update(
        A, LinkFields(long_url="https://example.com/", tags=("sale",)), expected_version=1, now=NOW
    )
    await add(store, 2, {A: 10})

    assert await sums(store, since=HOUR, until=HOUR + HOUR_S) == [11, 11, 0, 1, 11]
