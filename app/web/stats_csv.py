"""Statistics as CSV: a line for each number, harmless in a spreadsheet as exports are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from app.domain.visits import OF_VISITS
from app.interchange.inert import guarded

COLUMNS = ("section", "start", "value", "visits")
_KINDS = ("people", "bots", "previews", "prefetches")
_REFUSALS = ("missed", "gone")
_Line = tuple[str, datetime | None, str, int]


def stats_csv(found: Any) -> str:
    """
    Return *found*, statistics of a link or of all links as the API or its client has them.

    Sections are those of the JSON: `total` and `hours` of a link, `visits` by who made them, each dimension,
    `series` and `before`. Visitors stand with the visits, as `visitors`; so do, of all links, the requests
    `missed` and `gone`. An empty value has all that are not named.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section, start, value, visits in _lines(found):
        writer.writerow((section, "" if start is None else _time(start), guarded(value), visits))
    return text.getvalue()


def _lines(found: Any) -> Iterator[_Line]:
    if hasattr(found, "total"):
        yield "total", None, "", found.total
        for hour in found.hours:
            yield "hours", hour.hour, "", hour.clicks
    if found.visits is not None:
        yield from _kinds("visits", None, found.visits)
        yield "visits", None, "visitors", found.visits.visitors
        for dimension in OF_VISITS:
            named: Iterable[Any] = getattr(found.visits, dimension)
            yield from ((str(dimension), None, one.value, one.visits) for one in named)
    if hasattr(found, "missing"):
        yield from _refusals("visits", None, found)
        yield from (("missing", None, one.value, one.visits) for one in found.missing)
    for point in found.series or ():
        yield from _kinds("series", point.start, point)
        if hasattr(point, "missed"):
            yield from _refusals("series", point.start, point)
    if found.before is not None:
        yield from _kinds("before", found.before.since, found.before)
        yield "before", found.before.since, "visitors", found.before.visitors


def _kinds(section: str, start: datetime | None, counts: Any) -> Iterator[_Line]:
    return ((section, start, name, getattr(counts, name)) for name in _KINDS)


def _refusals(section: str, start: datetime | None, counts: Any) -> Iterator[_Line]:
    return ((section, start, name, getattr(counts, name)) for name in _REFUSALS)


def _time(time: datetime) -> str:
    """Return *time* as JSON has it: with the offset of its zone."""
    text = time.isoformat()
    return text.replace("+00:00", "Z") if time.utcoffset() == UTC.utcoffset(None) else text
