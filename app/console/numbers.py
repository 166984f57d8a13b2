"""Numbers of visits, as pages show them: columns of a chart, and rows with what visits looked like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.console import countries
from app.console.chart import Chart, chart_of
from app.domain.visits import OTHER, UNKNOWN, Dimension, Kind, Outcome, ValueVisits
from app.service.series import Interval
from app.service.stats import MAX_TOP, TOP, Extras, HourlyStats, Refusals, VisitStats

_SHOWN = (
    *(Dimension.REFERRER, Dimension.COUNTRY, Dimension.BROWSER, Dimension.OS, Dimension.DEVICE),
    *(Dimension.LANGUAGE, Dimension.BOT),
)

# What pages ask for: the map shades each country, tables show `TOP` values.
EXTRAS = Extras(Interval.HOUR, top=MAX_TOP)


@dataclass(frozen=True, slots=True)
class Table:
    """
    One dimension: its values with their visits and their percent of all; `most` is the largest of the visits.

    `is_unknown`: no visit has a value.
    """

    title: str
    rows: Sequence[tuple[str, int, str]]
    most: int
    is_unknown: bool


@dataclass(frozen=True, slots=True)
class Visits:
    """What visits looked like; `map` if a country of theirs is known."""

    people: int
    visitors: int
    bots: int
    others: int
    tables: Sequence[Table]
    map: countries.WorldMap | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """The clicks of a link over some time, and its visits."""

    total: int
    clicks: int
    chart: Chart
    visits: Visits


@dataclass(frozen=True, slots=True)
class NotFound:
    """Requests for no link, those for a link that is over, and the slugs asked for most; "" has others."""

    missed: int
    gone: int
    rows: Sequence[tuple[str, int]]


def not_found_of(refusals: Refusals) -> NotFound | None:
    """Return *refusals* as pages show them; None if there are none."""
    missed, gone = (refusals.by_outcome.get(one, 0) for one in (Outcome.MISSED, Outcome.GONE))
    if not missed and not gone:
        return None
    return NotFound(missed, gone, [(one.value, one.visits) for one in refusals.missing])


def numbers_of(stats: HourlyStats, texts: Mapping[str, str]) -> Numbers:
    """Return *stats* as the page of a link shows them."""
    chart = chart_of(stats.hours, stats.since, stats.series, texts)
    return Numbers(stats.link.visits, sum(stats.hours), chart, visits_of(stats.visits, texts))


def visits_of(stats: VisitStats, texts: Mapping[str, str]) -> Visits:
    """Return *stats* with the titles and the values that *texts* has words for."""
    tables = []
    for dimension in _SHOWN:
        values = _most(stats.of(dimension))
        if values:
            total = sum(one.visits for one in values)
            rows = [
                (_named(dimension, one.value, texts), one.visits, _share(one.visits, total)) for one in values
            ]
            most = max(one.visits for one in values)
            is_unknown = {one.value for one in values} == {UNKNOWN}
            tables.append(Table(texts[f"dimension_{dimension}"], rows, most, is_unknown))
    people, bots = stats.by(Kind.PERSON), stats.by(Kind.BOT)
    others = stats.by(Kind.PREVIEW) + stats.by(Kind.PREFETCH)
    drawn = countries.map_of(stats.of(Dimension.COUNTRY), texts["language"])
    return Visits(people, stats.visitors, bots, others, tables, drawn)


def _most(values: Sequence[ValueVisits]) -> Sequence[ValueVisits]:
    """Return the first `TOP` of *values*, and `OTHER` with the visits of the rest, if there are any."""
    named, rest = values[:TOP], values[TOP:]
    if not rest:
        return values
    return [*named, ValueVisits(rest[0].dimension, OTHER, sum(one.visits for one in rest))]


def _share(visits: int, total: int) -> str:
    # No value that has visits has nothing of them.
    return f"{visits / total:.0%}" if visits * 100 >= total else "<1%"


def _named(dimension: Dimension, value: str, texts: Mapping[str, str]) -> str:
    country = countries.name_of(value, texts["language"]) if dimension is Dimension.COUNTRY else None
    if country is not None:
        return country
    return texts.get("value_other" if value == OTHER else f"value_{value}", value)
