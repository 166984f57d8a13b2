"""Visits in the order of time: by the hour or by the day of a time zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import assert_never

from app.ports import PeriodVisits

HOUR = timedelta(hours=1)
# Days have more hours, as a rule; those that do not are found by the hour.
_LEAP = 21 * HOUR


class Interval(Enum):
    """What visits are added up by."""

    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Point:
    """The visits of each kind in the hour or day that begins at `start`, in the zone that was asked for."""

    start: datetime
    by_kind: Mapping[str, int]


def starts_of(since: datetime, until: datetime, interval: Interval, zone: tzinfo) -> Sequence[datetime]:
    """
    Return the first hour of each hour or day in [*since*, *until*), of whole hours of UTC.

    An hour that begins before midnight counts for the day that ends, also where zones are no whole hours
    apart.
    """
    starts, hour, begin = [since], since, _start(since, interval, zone)
    while True:
        after = hour + _LEAP
        if hour != starts[-1] or _start(after, interval, zone) != begin:
            after = hour + HOUR
        if after >= until:
            return starts
        hour = after
        if _start(hour, interval, zone) != begin:
            begin = _start(hour, interval, zone)
            starts.append(hour)


def points(
    visits: Iterable[PeriodVisits], starts: Sequence[datetime], interval: Interval, zone: tzinfo
) -> tuple[Point, ...]:
    """Return a point for each of *starts*, those without visits as well."""
    found: dict[datetime, Counter[str]] = {start: Counter() for start in starts}
    for one in visits:
        found[one.start][one.kind] += one.visits
    return tuple(
        Point(_start(start, interval, zone).astimezone(zone), by_kind) for start, by_kind in found.items()
    )


def _start(hour: datetime, interval: Interval, zone: tzinfo) -> datetime:
    """Return the start of what *hour* counts for, in UTC: a local time may come twice."""
    match interval:
        case Interval.HOUR:
            return hour.astimezone(UTC)
        case Interval.DAY:
            day = hour.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
            return day.astimezone(UTC)
        case _:
            assert_never(interval)
