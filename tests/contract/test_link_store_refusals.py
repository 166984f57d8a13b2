"""`VisitStore`: requests without a redirect have totals of their own, which visits do not touch."""

from __future__ import annotations

from datetime import timedelta

from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import ALL_LINKS, OTHER, Dimension, LinkVisits, refusals_of, total_of_domain
from app.ports import PeriodVisits, Store
from tests.contract.store_links import NOW
from tests.contract.test_link_store_visits import HOUR, A, listed, rolled_up

ALL, OWN, SEVENTH = (refusals_of(one) for one in (ALL_LINKS, total_of_domain(0), total_of_domain(7)))
OUTCOME, MISSING, KIND = Dimension.OUTCOME, Dimension.MISSING, Dimension.KIND
HOUR_S = timedelta(hours=1)


def described(n: int, visits: dict[Slug, LinkVisits], hour=HOUR) -> VisitsDescribed:
    return VisitsDescribed(f"{n:032x}", hour, visits)


def refused(missed: dict[str, int], gone: int = 0) -> LinkVisits:
    outcomes = {"missed": sum(missed.values()), **({"gone": gone} if gone else {})}
    return LinkVisits({OUTCOME: outcomes, MISSING: missed})


async def values(store: Store, slug: Slug) -> list[tuple[Dimension, str, int]]:
    found = await store.visit_values(slug, since=HOUR, until=HOUR + HOUR_S, limit=2)
    return [(one.dimension, one.value, one.visits) for one in found]


async def test_requests_without_a_redirect_add_up(store: Store) -> None:
    visit = LinkVisits({KIND: {"person": 2}}, (1,))
    one = described(1, {OWN: refused({"slae": 3, OTHER: 4}, gone=5), A: visit})
    other = described(2, {SEVENTH: refused({"slae": 1, "sael": 2}), OWN: refused({"aels": 1})})
    assert await store.add_visits([one, other], now=NOW, merge=listed) == 0
    assert await store.add_visits([one], now=NOW, merge=listed) == 1

    assert await values(store, OWN) == [
        (KIND, "missed", 8),
        (KIND, "gone", 5),
        (MISSING, "slae", 3),
        (MISSING, "aels", 1),
        (MISSING, OTHER, 4),
    ]
    assert await values(store, SEVENTH) == [
        (KIND, "missed", 3),
        (MISSING, "sael", 2),
        (MISSING, "slae", 1),
    ]
    assert await values(store, ALL) == [
        (KIND, "missed", 11),
        (KIND, "gone", 5),
        (MISSING, "slae", 4),
        (MISSING, "sael", 2),
        (MISSING, OTHER, 5),
    ]
    for total in (ALL_LINKS, total_of_domain(0), A):
        assert await values(store, total) == [(KIND, "person", 2)]


async def test_days_of_them_are_added_up(store: Store) -> None:
    """With those of visits: a day without any is read by its hours."""
    begin = HOUR.replace(hour=0)
    for n, hour in enumerate((0, 23)):
        visits = {OWN: refused({"slae": n + 1}, gone=1), A: LinkVisits({KIND: {"person": 1}})}
        one = described(n, visits, begin + hour * HOUR_S)
        await store.add_visits([one], now=NOW, merge=listed)
    until = begin + 24 * HOUR_S
    assert await rolled_up(store, since=begin, until=until) == 1

    for total in (ALL, OWN):
        assert await store.visit_kinds(total, starts=[begin, begin + 12 * HOUR_S], until=until) == [
            PeriodVisits(begin, "gone", 1),
            PeriodVisits(begin, "missed", 1),
            PeriodVisits(begin + 12 * HOUR_S, "gone", 1),
            PeriodVisits(begin + 12 * HOUR_S, "missed", 2),
        ]


async def test_message_as_an_earlier_worker_reads_it_adds_nothing(store: Store) -> None:
    """It leaves dimensions out that it does not know."""
    one = described(1, {OWN: LinkVisits({}), A: LinkVisits({KIND: {"person": 2}})})
    await store.add_visits([one], now=NOW, merge=listed)

    assert await values(store, OWN) == []
    assert await values(store, total_of_domain(0)) == [(KIND, "person", 2)]
