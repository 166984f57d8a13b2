"""Statistics as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from app.domain.domains import DomainIndex
from app.domain.link_key import name_of
from app.domain.visits import OF_VISITS, Kind, Outcome
from app.service.series import HOUR, Point
from app.service.stats import Before, HourlyStats, Overall, VisitStats


class HourlyClicks(msgspec.Struct):
    """The redirects of one hour; `hour` is its start in UTC."""

    hour: datetime
    clicks: int


class ValueCount(msgspec.Struct):
    """How many visits have this value. Empty: all values that are not named."""

    value: str
    visits: int


class VisitCounts(msgspec.Struct):
    """
    What visits looked like: in all, and by the values of each dimension with most of them (ten, or `top`).

    `people`, `bots`, `previews` and `prefetches` are all visits; all that follows is of people alone, but for
    `bot`; `source`, `medium` and `campaign` have those that name one (`utm_source` and so on, in the query of
    the visit or else of the target). `visitors` is about the number of people, each counted once a day.
    """

    people: int
    bots: int
    previews: int
    prefetches: int
    visitors: int
    referrer: list[ValueCount]
    country: list[ValueCount]
    city: list[ValueCount]
    language: list[ValueCount]
    browser: list[ValueCount]
    os: list[ValueCount]
    device: list[ValueCount]
    source: list[ValueCount]
    medium: list[ValueCount]
    campaign: list[ValueCount]
    bot: list[ValueCount]


class KindCounts(msgspec.Struct):
    """Visits by who made them, in the hour or day that begins at `start`."""

    start: datetime
    people: int
    bots: int
    previews: int
    prefetches: int


class TotalCounts(KindCounts):
    """Visits by who made them, and requests without a redirect, in the hour or day that begins at `start`."""

    missed: int
    gone: int


class PeriodBefore(msgspec.Struct):
    """Visits by who made them, and about how many visitors, in the period of the same length before."""

    since: datetime
    until: datetime
    people: int
    bots: int
    previews: int
    prefetches: int
    visitors: int


class OverallStats(msgspec.Struct):
    """
    What the visits of all links looked like, in the hours that begin in [since, until).

    `missed`: requests for a slug that is no link (404); `gone`: for a link that is expired, disabled or out
    of visits (410). `missing`: the ten slugs that most of the former asked for, as strangers typed them; an
    empty value has all that are not named. None of these is a visit, and with `tag` there are none.
    `series` with `interval`, `before` with `compare`; else they are null.
    """

    since: datetime
    until: datetime
    visits: VisitCounts
    missed: int
    gone: int
    missing: list[ValueCount]
    series: list[TotalCounts] | None
    before: PeriodBefore | None


class LinkStats(msgspec.Struct):
    """
    The redirects of a link: in total, and in each hour that begins in [since, until).

    Counts trail like `visits` of a link. A redirect counts in the hour in which its gateway flushes
    its counts, about a second later. `series` with `interval`, `before` with `compare`; else they are null.
    """

    domain: str
    slug: str
    total: int
    since: datetime
    until: datetime
    hours: list[HourlyClicks]
    visits: VisitCounts
    series: list[KindCounts] | None
    before: PeriodBefore | None


def stats_document(stats: HourlyStats, domains: DomainIndex) -> LinkStats:
    """Return *stats* of a link of one of *domains* as the API shows them."""
    hours = [HourlyClicks(stats.since + n * HOUR, clicks) for n, clicks in enumerate(stats.hours)]
    until = stats.since + len(stats.hours) * HOUR
    slug = stats.link.slug
    host = domains.of(slug).host
    visits = visit_counts(stats.visits)
    series, before = _series(stats.series), _before(stats.before)
    return LinkStats(
        host, name_of(slug), stats.link.visits, stats.since, until, hours, visits, series, before
    )


def _kinds(by_kind: Mapping[str, int]) -> dict[str, int]:
    return {
        "people": by_kind.get(Kind.PERSON, 0),
        "bots": by_kind.get(Kind.BOT, 0),
        "previews": by_kind.get(Kind.PREVIEW, 0),
        "prefetches": by_kind.get(Kind.PREFETCH, 0),
    }


def _series(points: Sequence[Point] | None) -> list[KindCounts] | None:
    return None if points is None else [KindCounts(one.start, **_kinds(one.by_kind)) for one in points]


def _before(before: Before | None) -> PeriodBefore | None:
    if before is None:
        return None
    kinds = _kinds(before.by_kind)
    return PeriodBefore(before.since, before.until, **kinds, visitors=before.visitors)


def visit_counts(stats: VisitStats) -> VisitCounts:
    """Return *stats* as the API shows them."""
    listed = {
        str(dimension): [ValueCount(one.value, one.visits) for one in stats.of(dimension)]
        for dimension in OF_VISITS
    }
    return VisitCounts(
        people=stats.by(Kind.PERSON),
        bots=stats.by(Kind.BOT),
        previews=stats.by(Kind.PREVIEW),
        prefetches=stats.by(Kind.PREFETCH),
        visitors=stats.visitors,
        **listed,
    )


def overall_document(overall: Overall) -> OverallStats:
    """Return *overall* as the API shows it."""
    refusals = overall.refusals
    return OverallStats(
        since=overall.since,
        until=overall.until,
        visits=visit_counts(overall.visits),
        **_outcomes(refusals.by_outcome),
        missing=[ValueCount(one.value, one.visits) for one in refusals.missing],
        series=_series_of_total(overall),
        before=_before(overall.before),
    )


def _series_of_total(overall: Overall) -> list[TotalCounts] | None:
    series, refused = overall.series, overall.refusals.series
    if series is None or refused is None:
        return None
    pairs = zip(series, refused, strict=True)
    return [TotalCounts(one.start, **_kinds(one.by_kind), **_outcomes(also.by_kind)) for one, also in pairs]


def _outcomes(counts: Mapping[str, int]) -> dict[str, int]:
    return {"missed": counts.get(Outcome.MISSED, 0), "gone": counts.get(Outcome.GONE, 0)}
