"""Visits over time as a chart: columns of hours or of days, with scales that people can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from app.domain.visits import Kind
from app.service.series import HOUR, Point

# The columns that a narrow screen can show: with more hours, each is a day.
_MOST_COLUMNS = 48
# What is written below columns of a narrow screen.
_MOST_MARKS = 5
# The part of its place that a column leaves free.
_GAP = 0.2
# The least of the height that a column has with a visit, in percent.
_LEAST = 1.0
# What a scale may end at, times a power of ten: the half of most of them is a round number, too.
_STEPS = (1, 2, 4, 6, 8, 10, 12, 16)


@dataclass(frozen=True, slots=True)
class Column:
    """
    The visits of an hour or a day (UTC), which may have begun before the time that is shown.

    `people` and `others` are parts of `visits`. Places and sizes are percent of the chart; `mark` is written
    below the column, if anything is.
    """

    begins: datetime
    name: str
    mark: str
    visits: int
    people: int
    others: int
    place: str
    left: str
    people_height: str
    people_top: str
    others_height: str
    others_top: str


@dataclass(frozen=True, slots=True)
class Chart:
    """
    Columns, and the number at the top of their scale.

    `slot`: the width of the place of a column, `width`: of the column. `is_parted`: it is known which visits
    are those of people. `half`: the number in the middle of the scale; None if that is no whole one.
    """

    columns: Sequence[Column]
    top: int
    half: int | None
    slot: str
    width: str
    is_parted: bool
    is_in_hours: bool


def chart_of(
    visits: Sequence[int], since: datetime, points: Sequence[Point] | None, texts: Mapping[str, str]
) -> Chart:
    """
    Return the chart of *visits* of each hour from *since* on.

    Args:
        points: the visits of each kind in each of these hours; None if that is not known.
    """
    people = _people(visits, points)
    is_in_hours = len(visits) <= _MOST_COLUMNS
    hours = list(zip(_hours(since, len(visits)), visits, people or visits, strict=True))
    parts = [[hour] for hour in hours] if is_in_hours else list(_days(hours))
    sums = [(part[0][0], sum(one[1] for one in part), sum(one[2] for one in part)) for part in parts]
    top = scale_to(max((count for _, count, _ in sums), default=0))
    slot = 100 / max(len(sums), 1)
    marks = _marks([begins for begins, _, _ in sums], texts, is_in_hours=is_in_hours)
    columns = [
        _column(
            (begins, count, of_people),
            name=_name(begins, texts, is_in_hours=is_in_hours),
            mark=marks.get(n, ""),
            left=n * slot,
            slot=slot,
            top=top,
        )
        for n, (begins, count, of_people) in enumerate(sums)
    ]
    half = top // 2 if top % 2 == 0 else None
    width = _percent(slot * (1 - _GAP))
    return Chart(columns, top, half, _percent(slot), width, people is not None, is_in_hours)


def scale_to(most: int) -> int:
    """Return the least of 1, 2, 4, 6, 8, 10, 12, 16, 20, 40 and so on that is no less than *most*."""
    unit = 1
    while unit * _STEPS[-1] < most:
        unit *= 10
    return next(step * unit for step in _STEPS if step * unit >= most)


def _people(visits: Sequence[int], points: Sequence[Point] | None) -> Sequence[int] | None:
    """Return how many of *visits* people made; None if that is not known, as without analytics."""
    if points is None or len(points) != len(visits):
        return None
    described = sum(sum(point.by_kind.values()) for point in points)
    if not described and any(visits):
        return None
    # A redirect is counted a moment before it is described.
    return [
        min(count, point.by_kind.get(Kind.PERSON, 0)) for count, point in zip(visits, points, strict=True)
    ]


def _hours(since: datetime, count: int) -> Iterator[datetime]:
    for n in range(count):
        yield (since + n * HOUR).astimezone(UTC)


def _days(hours: Sequence[tuple[datetime, int, int]]) -> Iterator[list[tuple[datetime, int, int]]]:
    for _, part in groupby(hours, key=lambda hour: hour[0].date()):
        yield list(part)


def _column(
    counted: tuple[datetime, int, int], *, name: str, mark: str, left: float, slot: float, top: int
) -> Column:
    begins, visits, people = counted
    others = visits - people
    whole, lower = _height(visits, top), _height(people, top)
    # Both parts are seen, if both have visits.
    upper = max(whole - lower, _LEAST) if others else 0.0
    return Column(
        begins,
        name,
        mark,
        visits,
        people,
        others,
        _percent(left),
        _percent(left + slot * _GAP / 2),
        _percent(lower),
        _percent(100 - lower),
        _percent(upper),
        _percent(max(100 - lower - upper, 0)),
    )


def _height(count: int, top: int) -> float:
    return max(_LEAST, count * 100 / top) if count else 0.0


def _percent(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def _marks(begins: Sequence[datetime], texts: Mapping[str, str], *, is_in_hours: bool) -> Mapping[int, str]:
    """Return what is written below the columns, by their numbers: so few that they do not touch."""
    if is_in_hours:
        marked = {n: f"{one:%H:%M}" for n, one in enumerate(begins) if one.hour % 6 == 0}
        # The last place would be cut off.
        return {n: mark for n, mark in marked.items() if n <= len(begins) - 3}
    every = -(-len(begins) // _MOST_MARKS)
    # Counted from today, which is there whatever the time of the day.
    last = len(begins) - 1
    return {
        n: _day(one, texts)
        for n, one in enumerate(begins)
        if ((last - n) % every == 0 and 0 < n < last) or n == last
    }


def _name(begins: datetime, texts: Mapping[str, str], *, is_in_hours: bool) -> str:
    weekday = texts["weekdays"].split()[begins.weekday()]
    day = f"{weekday} {_day(begins, texts)}"
    return f"{day}, {begins:%H:%M}" if is_in_hours else day


def _day(time: datetime, texts: Mapping[str, str]) -> str:
    month = texts["months"].split()[time.month - 1]
    return texts["day_and_month"].format(day=time.day, month=month)
