"""Periods from days and hours: the same sums, whichever days are added up."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from app.adapters.visit_periods import PeriodPlan, number_of
from app.ports import PeriodVisits

BEGIN = datetime(2030, 1, 31, tzinfo=UTC)
FIRST = number_of(BEGIN)
KINDS = ("bot", "person")


def at(number: int) -> datetime:
    return BEGIN + timedelta(hours=number - FIRST)


@pytest.mark.parametrize("seed", range(40))
def test_periods_have_the_visits_of_their_hours(seed):
    draw = random.Random(seed)
    hours = sorted(draw.sample(range(FIRST, FIRST + 120), draw.choice((1, 5, 60, 120))))
    rows = [(hour, kind, draw.randrange(1, 99)) for hour in hours for kind in KINDS]
    added_up = set(draw.sample(range(FIRST, FIRST + 120, 24), draw.randrange(6)))
    days: Counter[tuple[int, str]] = Counter()
    for hour, kind, visits in rows:
        if hour - hour % 24 in added_up:
            days[hour - hour % 24, kind] += visits
    bounds = sorted(draw.sample(range(FIRST - 30, FIRST + 150), draw.choice((2, 3, 9, 120))))
    wanted: Counter[tuple[int, str]] = Counter()
    for hour, kind, visits in rows:
        if bounds[0] <= hour < bounds[-1]:
            wanted[max(one for one in bounds[:-1] if one <= hour), kind] += visits

    starts = [at(one) for one in bounds[:-1]]
    plan = PeriodPlan(starts, at(bounds[-1]), (hours[0], hours[-1]), {day for day, _ in days})
    asked = set(plan.hours)
    assert len(asked) == len(plan.hours)
    found = plan.summed(
        [row for row in rows if row[0] in asked],
        [(day, kind, visits) for (day, kind), visits in days.items()],
    )

    assert list(found) == [PeriodVisits(at(start), kind, n) for (start, kind), n in sorted(wanted.items())]


def test_day_in_a_zone_takes_the_hours_beyond_its_midnight():
    days = range(FIRST, FIRST + 240, 24)
    starts = [at(day - 1) for day in days]

    plan = PeriodPlan(starts, at(FIRST + 239), (FIRST - 24, FIRST + 240), days)

    assert len(plan.hours) == 1 + len(days)
