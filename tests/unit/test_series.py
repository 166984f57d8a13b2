"""Visits by hours and days: each hour counts once, in the day of its zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.ports import HourVisits
from app.service.series import HOUR, Interval, points

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


def of(*hours):
    return [HourVisits(hour, "person", visits) for hour, visits in hours]


def shown(found):
    return [(point.start.isoformat(), sum(point.by_kind.values())) for point in found]


def test_hours_without_visits_are_there():
    found = points(of((NOON + HOUR, 3)), NOON, NOON + 3 * HOUR, Interval.HOUR, UTC)

    assert [visits for _, visits in shown(found)] == [0, 3, 0]
    assert found[0].start == NOON


def test_days_begin_in_their_zone():
    hours = of((datetime(2030, 1, 31, 22, tzinfo=UTC), 1), (datetime(2030, 1, 31, 23, tzinfo=UTC), 2))

    found = points(hours, NOON, NOON + 24 * HOUR, Interval.DAY, ZoneInfo("Europe/Vienna"))

    assert shown(found) == [("2030-01-31T00:00:00+01:00", 1), ("2030-02-01T00:00:00+01:00", 2)]


def test_hour_counts_for_the_day_in_which_it_begins():
    """Midnight in Kathmandu is at 18:15 UTC."""
    hours = of((datetime(2030, 1, 31, 18, tzinfo=UTC), 1), (datetime(2030, 1, 31, 19, tzinfo=UTC), 2))

    found = points(hours, NOON, NOON + 12 * HOUR, Interval.DAY, ZoneInfo("Asia/Kathmandu"))

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

    [point] = points(of(*each), first, end, Interval.DAY, zone)

    assert sum(point.by_kind.values()) == hours
    by_hour = points(of(*each), first, end, Interval.HOUR, zone)
    assert len(by_hour) == hours
    assert all(sum(one.by_kind.values()) == 1 for one in by_hour)
