"""Descriptions of visits as rows, for both stores."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.link_key import split_key
from app.domain.visit_parts import parts_of
from app.domain.visits import (
    ALL_LINKS,
    ALL_LINKS_BY_DAY,
    Dimension,
    by_day_of,
    is_of_refusals,
    refusals_of,
    total_of_domain,
    total_of_tag,
)

# Of a day, added up in one transaction.
TOTALS_AT_A_TIME = 20


# Of links and their tags in one transaction, about. Links of a part without tags have a third of it.
_MAX_ROWS = 120_000


class Traits(NamedTuple):
    """Of links: visits of `undescribed` are left out, `tags` has those of the links that have some."""

    undescribed: Collection[str]
    tags: Mapping[str, Sequence[str]]


class Columns(NamedTuple):
    """Visits by value, a list for each column, in the order of slug, dimension and value."""

    slugs: list[Slug]
    dimensions: list[str]
    values: list[str]
    visits: list[int]


class Folded(NamedTuple):
    """
    Several descriptions added up, totals included.

    `counts`: by hour. `visitors`: by day (UTC), in the order of their slugs.
    """

    counts: Mapping[datetime, Columns]
    visitors: Mapping[date, Mapping[Slug, set[int]]]


def day_of(hour: datetime) -> datetime:
    """Return the start of the day (UTC) of *hour*."""
    return hour.replace(hour=0)


def totals_in(counts: Columns) -> list[Slug]:
    """Return the totals in *counts*, each once."""
    return list(dict.fromkeys(counts.slugs[_totals(counts)]))


def by_day(counts: Columns, totals: Collection[str]) -> Columns:
    """Return what *counts* has of *totals*, for the day in which its hour is."""
    days = Columns([], [], [], [])
    rows = zip(*(column[_totals(counts)] for column in counts), strict=True)
    for slug, dimension, value, visits in rows:
        if slug in totals:
            days.slugs.append(by_day_of(slug))
            days.dimensions.append(dimension)
            days.values.append(value)
            days.visits.append(visits)
    return days


def _totals(counts: Columns) -> slice:
    return slice(bisect_left(counts.slugs, ALL_LINKS), bisect_left(counts.slugs, ALL_LINKS_BY_DAY))


def slugs_of(described: Iterable[VisitsDescribed]) -> list[Slug]:
    """Return the slugs in *described*, each once."""
    return list(dict.fromkeys(slug for one in described for slug in one.visits))


_Counts = dict[Slug, dict[Dimension, dict[str, int]]]


def parts_by_tags(
    described: Iterable[VisitsDescribed], traits: Traits
) -> Iterator[Sequence[VisitsDescribed]]:
    """Part *described* so that links with many tags take no longer."""
    return parts_of(described, _MAX_ROWS, lambda slug: 1 + len(traits.tags.get(slug, ())))


def folded(described: Iterable[VisitsDescribed], traits: Traits) -> Folded:
    """Return *described* added up: for its links, their domains, their tags, and for all of them together."""
    hours: dict[datetime, _Counts] = {}
    days: dict[date, dict[Slug, set[int]]] = {}
    refused: dict[datetime, _Counts] = {}
    for one in described:
        counts = hours.setdefault(one.hour, {})
        visitors = days.setdefault(one.hour.date(), {})
        for slug, visits in one.visits.items():
            if is_of_refusals(slug):
                _add_refusals(refused.setdefault(one.hour, {}), slug, visits.counts)
                continue
            if slug in traits.undescribed:
                continue
            _add(counts.setdefault(slug, {}), visits.counts)
            if visits.visitors:
                visitors.setdefault(slug, set()).update(visits.visitors)
    for counts in hours.values():
        counts.update(_totals_of(counts, traits.tags))
    for hour, counts in refused.items():
        hours[hour].update(counts)
    for visitors in days.values():
        visitors.update(_visitors_of_totals(visitors, traits.tags))
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


def _add_refusals(counts: _Counts, total: Slug, added: Mapping[Dimension, Mapping[str, int]]) -> None:
    """Add *added* to *total*, of a domain, and to that of all."""
    # In the place of kinds they have the same ways to be added up by the hour and by the day.
    stored = {
        Dimension.KIND: added.get(Dimension.OUTCOME, {}),
        Dimension.MISSING: added.get(Dimension.MISSING, {}),
    }
    for of in (total, refusals_of(ALL_LINKS)):
        _add(counts.setdefault(of, {}), stored)


def _totals_of(counts: _Counts, tags: Mapping[str, Sequence[str]]) -> _Counts:
    domains: _Counts = {}
    of_tags: _Counts = {}
    everything: _Counts = {ALL_LINKS: {}}
    for slug, one in counts.items():
        _add(domains.setdefault(_domain_of(slug), {}), one)
        for total in _tags_of(slug, tags):
            _add(of_tags.setdefault(total, {}), one)
    for of_domain in domains.values():
        _add(everything[ALL_LINKS], of_domain)
    return everything | domains | of_tags


def _visitors_of_totals(
    visitors: Mapping[Slug, set[int]], tags: Mapping[str, Sequence[str]]
) -> dict[Slug, set[int]]:
    totals: dict[Slug, set[int]] = {}
    for slug, of_link in visitors.items():
        for total in (ALL_LINKS, _domain_of(slug), *_tags_of(slug, tags)):
            totals.setdefault(total, set()).update(of_link)
    return totals


def _domain_of(slug: Slug) -> Slug:
    return total_of_domain(split_key(slug)[0])


def _tags_of(slug: Slug, tags: Mapping[str, Sequence[str]]) -> Iterator[Slug]:
    # A stored link may have a tag twice.
    return map(total_of_tag, dict.fromkeys(tags.get(slug, ())))


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
