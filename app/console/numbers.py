"""Numbers of visits, as pages show them: columns of a chart, and rows with what visits looked like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.console.rendering import parts_of
from app.domain.visits import OTHER, Dimension, Kind
from app.service.series import HOUR
from app.service.stats import HourlyStats, VisitStats

# The columns of a chart that a narrow screen can show.
_MOST_COLUMNS = 48
_SHOWN = (
    *(Dimension.REFERRER, Dimension.COUNTRY, Dimension.BROWSER, Dimension.OS, Dimension.DEVICE),
    *(Dimension.LANGUAGE, Dimension.BOT),
)


@dataclass(frozen=True, slots=True)
class Column:
    """The clicks of one hour, or of several, and their height in 100."""

    begins: datetime
    clicks: int
    height: int


@dataclass(frozen=True, slots=True)
class Table:
    """One dimension: its values with their visits; `most` is the largest of these."""

    title: str
    rows: Sequence[tuple[str, int]]
    most: int


@dataclass(frozen=True, slots=True)
class Visits:
    """What visits looked like."""

    people: int
    visitors: int
    bots: int
    others: int
    tables: Sequence[Table]


@dataclass(frozen=True, slots=True)
class Numbers:
    """The clicks of a link over some time, and its visits."""

    total: int
    clicks: int
    hours: int
    columns: Sequence[Column]
    visits: Visits


def numbers_of(stats: HourlyStats, texts: Mapping[str, str]) -> Numbers:
    """Return *stats* as the page of a link shows them; hours share columns if there are many."""
    together = 1 if len(stats.hours) <= _MOST_COLUMNS else 24
    starts = range(0, len(stats.hours), together)
    clicks = [sum(stats.hours[start : start + together]) for start in starts]
    columns = [
        Column(stats.since + start * HOUR, count, height)
        for start, (count, height) in zip(starts, parts_of(clicks), strict=True)
    ]
    return Numbers(stats.link.visits, sum(clicks), together, columns, visits_of(stats.visits, texts))


def visits_of(stats: VisitStats, texts: Mapping[str, str]) -> Visits:
    """Return *stats* with the titles and the values that *texts* has words for."""
    tables = []
    for dimension in _SHOWN:
        values = stats.of(dimension)
        if values:
            rows = [(_named(one.value, texts), one.visits) for one in values]
            most = max(one.visits for one in values)
            tables.append(Table(texts[f"dimension_{dimension}"], rows, most))
    people, bots = stats.by(Kind.PERSON), stats.by(Kind.BOT)
    others = stats.by(Kind.PREVIEW) + stats.by(Kind.PREFETCH)
    return Visits(people, stats.visitors, bots, others, tables)


def _named(value: str, texts: Mapping[str, str]) -> str:
    return texts.get("value_other" if value == OTHER else f"value_{value}", value)
