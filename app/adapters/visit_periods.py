"""
Visits by kind in periods, from hours and from days that are added up, for both stores.

Bounds of periods cut each day (UTC) into parts. Of a day that is added up, the longest part is what the
others leave of its sum: a year by the days of any zone takes at most twelve hours of each day.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from app.ports import PeriodVisits

_DAY = 24
_HOUR_S = 3600
# A number of an hour or of a day, a kind, and its visits.
Row = tuple[int, str, int]


def number_of(hour: datetime) -> int:
    """Return the number of *hour*, counted from 1970 in UTC."""
    return int(hour.timestamp()) // _HOUR_S


class PeriodPlan:
    """
    Which hours the visits of some periods take.

    Args:
        starts: the first hour of each period, in their order; a period ends where the next one begins.
        until: the end of the last one.
        held: the first and the last hour that have visits at all.
        added_up: the days that are, by the number of their first hour.
    """

    def __init__(
        self, starts: Sequence[datetime], until: datetime, held: tuple[int, int], added_up: Collection[int]
    ) -> None:
        self._starts = starts
        self._bounds = [number_of(start) for start in starts]
        self._end = number_of(until)
        self.hours: list[int] = []
        # Of days whose longest part is not looked up: where it begins, by day.
        self._rests: dict[int, int] = {}
        first, end = max(self._bounds[0], held[0]), min(self._end, held[1] + 1)
        cuts = [*self._bounds, self._end]
        for day in range(first - first % _DAY, end, _DAY):
            within = cuts[bisect_right(cuts, day) : bisect_left(cuts, day + _DAY)]
            parts = list(pairwise([day, *within, day + _DAY]))
            self._add(day, parts, first, end, is_added_up=day in added_up)

    def _add(
        self, day: int, parts: list[tuple[int, int]], first: int, end: int, *, is_added_up: bool
    ) -> None:
        longest = max(parts, key=lambda part: part[1] - part[0])
        if is_added_up and self._bounds[0] <= longest[0] and longest[1] <= self._end:
            self._rests[day] = longest[0]
            for part in parts:
                if part is not longest:
                    self.hours.extend(range(*part))
        else:
            self.hours.extend(range(max(day, first), min(day + _DAY, end)))

    def summed(self, of_hours: Iterable[Row], of_days: Iterable[Row]) -> Sequence[PeriodVisits]:
        """
        Return the visits of each period by kind, in the order of both.

        Args:
            of_hours: the visits of `hours`.
            of_days: those of the days that are added up.
        """
        sums: Counter[tuple[int, str]] = Counter()
        rests: Counter[tuple[int, str]] = Counter()
        for day, kind, visits in of_days:
            if day in self._rests:
                rests[day, kind] += visits
        for hour, kind, visits in of_hours:
            if self._bounds[0] <= hour < self._end:
                sums[bisect_right(self._bounds, hour) - 1, kind] += visits
            day = hour - hour % _DAY
            if day in self._rests:
                rests[day, kind] -= visits
        for (day, kind), visits in rests.items():
            if visits > 0:
                sums[bisect_right(self._bounds, self._rests[day]) - 1, kind] += visits
        return [
            PeriodVisits(self._starts[period], kind, visits)
            for (period, kind), visits in sorted(sums.items())
        ]
