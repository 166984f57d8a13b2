"""Visits by hours and days: each hour counts once, in the day of its zone."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.ports import PeriodVisits
from app.service.series import HOUR, Interval, points, starts_of

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


def of(*hours):
    return hours


def series(hours, since, until, interval, zone):
    """The points, when a store adds *hours* up by what they begin."""
    starts = starts_of(since, until, interval, zone)
    placed = [(starts[bisect_right(starts, hour) - 1], visits) for hour, visits in hours]
    return points([PeriodVisits(start, "person", visits) for start, visits in placed], starts, interval, zone)


def shown(found):
    return [(point.start.isoformat(), sum(point.by_kind.values())) for point in found]


def test_hours_without_visits_are_there():
    found = series(of((NOON + HOUR, 3)), NOON, NOON + 3 * HOUR, Interval.HOUR, UTC)

    assert [visits for _, visits in shown(found)] == [0, 3, 0]
    assert found[0].start == NOON


def test_days_begin_in_their_zone():
    hours = of((datetime(2030, 1, 31, 22, tzinfo=UTC), 1), (datetime(2030, 1, 31, 23, tzinfo=UTC), 2))

    found = series(hours, NOON, NOON + 24 * HOUR, Interval.DAY, ZoneInfo("Europe/Vienna"))

    assert shown(found) == [("2030-01-31T00:00:00+01:00", 1), ("2030-02-01T00:00:00+01:00", 2)]


def test_hour_counts_for_the_day_in_which_it_begins():
    """Midnight in Kathmandu is at 18:15 UTC."""
    hours = of((datetime(2030, 1, 31, 18, tzinfo=UTC), 1), (datetime(2030, 1, 31, 19, tzinfo=UTC), 2))

    found = series(hours, NOON, NOON + 12 * HOUR, Interval.DAY, ZoneInfo("Asia/Kathmandu"))

    assert shown(found) == [("2030-01-31T00:00:00+05:45", 1), ("2030-02-01T00:00:00+05:45", 2)]


@pytest.mark.parametrize(
    ("day", "hours"),
    [((2030, 3, 31), 23), ((2030, 10, 27), 25)],
    ids=["clocks go forward", "clocks go back"],
)
def test_days_on_which_clocks_change(day, hours):
    zone = ZoneInfo("Europe/Vienna")
    year, month, number = day
    midnight = datetime(year, month, number, tzinfo=zone)
    first, end = midnight.astimezone(UTC), (midnight + timedelta(days=1)).astimezone(UTC)
    each = [(first + n * HOUR, 1) for n in range((end - first) // HOUR)]

    [point] = series(of(*each), first, end, Interval.DAY, zone)

    assert sum(point.by_kind.values()) == hours
    by_hour = series(of(*each), first, end, Interval.HOUR, zone)
    assert len(by_hour) == hours
    assert all(sum(one.by_kind.values()) == 1 for one in by_hour)


@pytest.mark.parametrize(
    "name",
    ["UTC", "Europe/Vienna", "Asia/Kathmandu", "Pacific/Apia", "America/Sao_Paulo", "Antarctica/Troll"],
)
def test_days_of_years_begin_where_each_hour_says(name):
    zone = ZoneInfo(name)
    since = datetime(2011, 3, 1, 5, tzinfo=UTC)
    hours = [since + n * HOUR for n in range(366 * 24)]
    days = [hour.astimezone(zone).date() for hour in hours]

    starts = starts_of(since, hours[-1] + HOUR, Interval.DAY, zone)

    first_of_day = [n for n in range(len(hours)) if n == 0 or days[n] != days[n - 1]]
    assert starts == [hours[n] for n in first_of_day]
