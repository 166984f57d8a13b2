"""Visits in the order of time: by the hour or by the day of a time zone, from counts by the hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import assert_never

from app.ports import HourVisits

HOUR = timedelta(hours=1)


class Interval(Enum):
    """What visits are added up by."""

    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Point:
    """The visits of each kind in the hour or day that begins at `start`, in the zone that was asked for."""

    start: datetime
    by_kind: Mapping[str, int]


def points(
    hours: Iterable[HourVisits], since: datetime, until: datetime, interval: Interval, zone: tzinfo
) -> tuple[Point, ...]:
    """
    Return a point for each hour or day in [*since*, *until*), those without visits as well.

    Hours are those of UTC: one that begins before midnight counts for the day that ends, also where zones are
    no whole hours apart.
    """
    # Of each hour once: a zone takes its time, and a year has four counts in each of 8,760 hours.
    starts = dict(_starts(since, until, interval, zone))
    counts: dict[datetime, Counter[str]] = {start: Counter() for start in starts.values()}
    for one in hours:
        counts[starts[one.hour]][one.kind] += one.visits
    return tuple(Point(start.astimezone(zone), by_kind) for start, by_kind in counts.items())


def _starts(
    since: datetime, until: datetime, interval: Interval, zone: tzinfo
) -> Iterator[tuple[datetime, datetime]]:
    hour = since
    while hour < until:
        yield hour, _start(hour, interval, zone)
        hour += HOUR


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
