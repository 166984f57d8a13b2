"""Clicks of a link by the hour, and what its visits looked like."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from app.concurrency.actors import reach
from app.domain.domains import Domain, DomainIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, Slug
from app.domain.reach import EVERYTHING
from app.domain.visits import (
    ALL_LINKS,
    Dimension,
    Kind,
    ValueVisits,
    refusals_of,
    total_of_domain,
    total_of_tag,
)
from app.ports import ClickStore, LinkStore, VisitStore
from app.service.links import Removed
from app.service.series import HOUR, Interval, Point, points, starts_of

DEFAULT_RANGE = timedelta(hours=24)
MAX_RANGE = timedelta(days=31)
# Without hours, a longer range takes no more room.
MAX_WIDE_RANGE = timedelta(days=366)
# Values of each dimension that are named, by default and at most.
TOP, MAX_TOP = 10, 250
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class VisitStats:
    """
    What visits looked like in some hours: the values of each dimension with the most visits, most first.

    `visitors`: about how many people there were in the days of these hours (UTC), with a standard error of
    0.65 percent. A visitor counts once a day at least: the next day has other hashes.
    """

    values: tuple[ValueVisits, ...]
    visitors: int

    def of(self, dimension: Dimension) -> Sequence[ValueVisits]:
        """Return the values of *dimension*."""
        return [one for one in self.values if one.dimension is dimension]

    def by(self, kind: Kind) -> int:
        """Return the visits of *kind*."""
        return sum(one.visits for one in self.of(Dimension.KIND) if one.value == kind)


@dataclass(frozen=True, slots=True)
class Extras:
    """
    What a request wants besides: visits by *interval* in the days of *zone*, and the period before.

    Without an interval there is no series. `top`: how many values of each dimension are
    named, 1 to `MAX_TOP`.
    """

    interval: Interval | None = None
    zone: tzinfo = UTC
    compares: bool = False
    top: int = TOP


@dataclass(frozen=True, slots=True)
class Before:
    """The visits of each kind, and the visitors, in the hours that begin in [`since`, `until`)."""

    since: datetime
    until: datetime
    by_kind: Mapping[str, int]
    visitors: int


@dataclass(frozen=True, slots=True)
class Refusals:
    """
    Requests without a redirect: how many there were by `Outcome`, and the slugs that most asked for.

    A request for no link has no tags: of a tag there are none.
    """

    by_outcome: Mapping[str, int]
    missing: tuple[ValueVisits, ...] = ()
    series: tuple[Point, ...] | None = None


@dataclass(frozen=True, slots=True)
class Overall:
    """The visits of a total in the hours that begin in [`since`, `until`); the rest if it is asked for."""

    since: datetime
    until: datetime
    visits: VisitStats
    refusals: Refusals
    series: tuple[Point, ...] | None = None
    before: Before | None = None


@dataclass(frozen=True, slots=True)
class HourlyStats:
    """
    The clicks of `link` in each hour from `since` on; hours without clicks are 0.

    `link.visits` is the total, read before the hours: their sum may be slightly larger.
    """

    link: Link
    since: datetime
    hours: tuple[int, ...]
    visits: VisitStats
    series: tuple[Point, ...] | None = None
    before: Before | None = None


NO_EXTRAS = Extras()


def total(index: DomainIndex, domain: Domain | None, tag: str | None) -> Slug:
    """
    Return the total of the links of *domain* or of those with *tag*; without both that of all links.

    Raises:
        InvalidInput: both are asked for; no total is of both.
    """
    if domain is not None and tag is not None:
        raise InvalidInput([FieldError("tag", "tag_with_domain", "and domain exclude each other")])
    if tag is not None:
        return total_of_tag(tag)
    # The only domain has all links, those from before visits were counted by domain as well.
    if domain is None or len(index.known()) == 1:
        return ALL_LINKS
    return total_of_domain(domain.domain_id)


def reaches_total(domain: Domain | None) -> bool:
    """May the present key read the total of *domain*, or of all links for None? Owners have no totals."""
    within = reach()
    if domain is None:
        return within == EVERYTHING
    return within.owner is None and within.has_domain(domain.domain_id)


class Stats:
    """
    Reads click counts. They trail redirects by about two seconds, see `app.service.clicks`.

    Args:
        count: returns about how many visitors some sketches have together.
        clock: the present time, timezone-aware UTC.
    """

    def __init__(
        self,
        links: LinkStore,
        clicks: ClickStore,
        visits: VisitStore,
        *,
        count: Callable[[Iterable[bytes]], int],
        clock: Callable[[], datetime],
    ) -> None:
        self._links = links
        self._clicks = clicks
        self._visits = visits
        self._count = count
        self._clock = clock

    async def hourly(
        self,
        slug: Slug,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        extras: Extras = NO_EXTRAS,
    ) -> HourlyStats | Removed | None:
        """
        Return the clicks of each hour that overlaps [*since*, *until*), at most 31 days.

        *until* defaults to the end of the present hour, *since* to 24 hours before *until*.

        Raises:
            InvalidInput: the range is empty, too long or has no time zone.
            Unavailable: the store did not answer.
        """
        first, end = _range(since, until, self._clock(), MAX_RANGE)
        link = await self._links.get(slug)
        if link is None or not reach().holds(link):
            return None
        if link.removed_at is not None:
            return Removed(link)
        clicks = await self._clicks.hourly_clicks(link.slug, since=first, until=end)
        hours = range((end - first) // HOUR)
        visits = await self._described(link.slug, first, end, extras.top)
        return HourlyStats(
            link,
            first,
            tuple(clicks.get(first + n * HOUR, 0) for n in hours),
            visits,
            await self._series(link.slug, first, end, extras),
            await self._before(link.slug, first, end) if extras.compares else None,
        )

    async def overall(
        self,
        of: Slug = ALL_LINKS,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        extras: Extras = NO_EXTRAS,
    ) -> Overall:
        """
        Return what the visits of a total looked like, in a range as in `hourly`, at most 366 days.

        It asks for no reach: the caller does.

        Args:
            of: as `total` returns it.

        Raises:
            InvalidInput: the range is empty, too long or has no time zone.
            Unavailable: the store did not answer.
        """
        first, end = _range(since, until, self._clock(), MAX_WIDE_RANGE)
        if extras.interval is Interval.HOUR and end - first > MAX_RANGE:
            message = f"must be at most {MAX_RANGE.days} days before until, by the hour"
            raise InvalidInput([FieldError("since", "range_too_long", message)])
        return Overall(
            first,
            end,
            await self._described(of, first, end, extras.top),
            await self._refusals(of, first, end, extras),
            await self._series(of, first, end, extras),
            await self._before(of, first, end) if extras.compares else None,
        )

    async def _refusals(self, of: Slug, first: datetime, end: datetime, extras: Extras) -> Refusals:
        total = refusals_of(of)
        values = await self._visits.visit_values(total, since=first, until=end, limit=TOP)
        return Refusals(
            {one.value: one.visits for one in values if one.dimension is Dimension.KIND},
            tuple(one for one in values if one.dimension is Dimension.MISSING),
            await self._series(total, first, end, extras),
        )

    async def _series(
        self, slug: Slug, first: datetime, end: datetime, extras: Extras
    ) -> tuple[Point, ...] | None:
        if extras.interval is None:
            return None
        # A year of a zone takes milliseconds.
        starts = await asyncio.to_thread(starts_of, first, end, extras.interval, extras.zone)
        visits = await self._visits.visit_kinds(slug, starts=starts, until=end)
        return points(visits, starts, extras.interval, extras.zone)

    async def _before(self, slug: Slug, first: datetime, end: datetime) -> Before:
        """Return the visits of the period of the same length before *first*."""
        start = first - (end - first)
        visits = await self._visits.visit_kinds(slug, starts=[start], until=first)
        by_kind = {one.kind: one.visits for one in visits}
        return Before(start, first, by_kind, await self._visitors(slug, start, first))

    async def _described(self, slug: Slug, first: datetime, end: datetime, top: int) -> VisitStats:
        values = await self._visits.visit_values(slug, since=first, until=end, limit=top)
        return VisitStats(tuple(values), await self._visitors(slug, first, end))

    async def _visitors(self, slug: Slug, first: datetime, end: datetime) -> int:
        last = end - timedelta.resolution
        sketches = await self._visits.visitor_sketches(slug, first=first.date(), last=last.date())
        return await asyncio.to_thread(self._count, sketches) if sketches else 0


def _range(
    since: datetime | None, until: datetime | None, now: datetime, longest: timedelta
) -> tuple[datetime, datetime]:
    errors: list[FieldError] = []
    for field, value in (("since", since), ("until", until)):
        if value is not None and value.tzinfo is None:
            message = "must name its time zone, as in 2030-01-31T12:00:00Z"
            errors.append(FieldError(field, "time_without_zone", message))
        elif value is not None and not _FIRST <= value <= _LAST:
            message = f"must lie in the years {_FIRST.year} to {_LAST.year - 1}"
            errors.append(FieldError(field, "time_out_of_range", message))
    if errors:
        raise InvalidInput(errors)
    end = _ceiling(until or now + timedelta.resolution)
    first = _floor(since or end - DEFAULT_RANGE)
    if first >= end:
        raise InvalidInput([FieldError("since", "range_empty", "must be earlier than until")])
    if end - first > longest:
        message = f"must be at most {longest.days} days before until"
        raise InvalidInput([FieldError("since", "range_too_long", message)])
    return first, end


def _floor(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _ceiling(time: datetime) -> datetime:
    return _floor(time + HOUR - timedelta.resolution)
