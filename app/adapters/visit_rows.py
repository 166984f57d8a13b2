"""Descriptions of visits as rows, for both stores."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from typing import NamedTuple

from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import ALL_LINKS, ALL_LINKS_BY_DAY, Dimension


class Columns(NamedTuple):
    """Visits by value, a list for each column, in the order of slug, dimension and value."""

    slugs: list[Slug]
    dimensions: list[str]
    values: list[str]
    visits: list[int]


class Folded(NamedTuple):
    """
    Several descriptions added up, `ALL_LINKS` included.

    `counts`: by hour. `visitors`: by day (UTC), in the order of their slugs.
    """

    counts: Mapping[datetime, Columns]
    visitors: Mapping[date, Mapping[Slug, set[int]]]


def day_of(hour: datetime) -> datetime:
    """Return the start of the day (UTC) of *hour*."""
    return hour.replace(hour=0)


def by_day(counts: Columns) -> Columns:
    """Return the visits of all links in *counts*, for the day in which their hour is."""
    end = bisect_right(counts.slugs, ALL_LINKS)
    start = bisect_left(counts.slugs, ALL_LINKS)
    part = slice(start, end)
    slugs = [ALL_LINKS_BY_DAY] * (end - start)
    return Columns(slugs, counts.dimensions[part], counts.values[part], counts.visits[part])


def slugs_of(described: Iterable[VisitsDescribed]) -> list[Slug]:
    """Return the slugs in *described*, each once."""
    return list(dict.fromkeys(slug for one in described for slug in one.visits))


_Counts = dict[Slug, dict[Dimension, dict[str, int]]]


def folded(described: Iterable[VisitsDescribed], undescribed: Collection[str]) -> Folded:
    """
    Return *described* added up, for its links and for all of them together.

    Args:
        undescribed: links whose visits are left out.
    """
    hours: dict[datetime, _Counts] = {}
    days: dict[date, dict[Slug, set[int]]] = {}
    for one in described:
        counts = hours.setdefault(one.hour, {})
        visitors = days.setdefault(one.hour.date(), {})
        for slug, visits in one.visits.items():
            if slug in undescribed:
                continue
            _add(counts.setdefault(slug, {}), visits.counts)
            if visits.visitors:
                visitors.setdefault(slug, set()).update(visits.visitors)
    for counts in hours.values():
        counts[ALL_LINKS] = _together(counts)
    for visitors in days.values():
        if visitors:
            visitors[ALL_LINKS] = set().union(*visitors.values())
    return Folded(
        {hour: _columns(counts) for hour, counts in hours.items()},
        {day: dict(sorted(visitors.items())) for day, visitors in days.items() if visitors},
    )


def _add(counts: dict[Dimension, dict[str, int]], added: Mapping[Dimension, Mapping[str, int]]) -> None:
    for dimension, values in added.items():
        held = counts.get(dimension)
        if held is None:
            counts[dimension] = dict(values)
            continue
        for value, visits in values.items():
            held[value] = held.get(value, 0) + visits


def _together(counts: _Counts) -> dict[Dimension, dict[str, int]]:
    total: dict[Dimension, dict[str, int]] = {}
    for slug, one in counts.items():
        if slug != ALL_LINKS:
            _add(total, one)
    return total


def _columns(counts: _Counts) -> Columns:
    columns = Columns([], [], [], [])
    for slug in sorted(counts):
        one = counts[slug]
        for dimension in sorted(one):
            # A list of one is common, and sorted for nothing.
            values = one[dimension]
            named = sorted(values) if len(values) > 1 else list(values)
            columns.values.extend(named)
            columns.visits.extend(map(values.__getitem__, named))
            columns.slugs.extend([slug] * len(named))
            columns.dimensions.extend([str(dimension)] * len(named))
    return columns
