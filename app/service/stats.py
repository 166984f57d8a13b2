"""Clicks of a link by the hour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.concurrency.actors import reach
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, Slug
from app.ports import ClickStore, LinkStore
from app.service.links import Removed

HOUR = timedelta(hours=1)
DEFAULT_RANGE = timedelta(hours=24)
MAX_RANGE = timedelta(days=31)
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HourlyStats:
    """
    The clicks of `link` in each hour from `since` on; hours without clicks are 0.

    `link.visits` is the total, read before the hours: their sum may be slightly larger.
    """

    link: Link
    since: datetime
    hours: tuple[int, ...]


class Stats:
    """
    Reads click counts. They trail redirects by about two seconds, see `app.service.clicks`.

    Args:
        clock: the present time, timezone-aware UTC.
    """

    def __init__(self, links: LinkStore, clicks: ClickStore, *, clock: Callable[[], datetime]) -> None:
        self._links = links
        self._clicks = clicks
        self._clock = clock

    async def hourly(
        self, slug: Slug, *, since: datetime | None = None, until: datetime | None = None
    ) -> HourlyStats | Removed | None:
        """
        Return the clicks of each hour that overlaps [*since*, *until*), at most 31 days.

        *until* defaults to the end of the present hour, *since* to 24 hours before *until*.

        Raises:
            InvalidInput: the range is empty, too long or has no time zone.
            Unavailable: the store did not answer.
        """
        first, end = _range(since, until, self._clock())
        link = await self._links.get(slug)
        if link is None or not reach().holds(link):
            return None
        if link.removed_at is not None:
            return Removed(link)
        clicks = await self._clicks.hourly_clicks(slug, since=first, until=end)
        hours = range((end - first) // HOUR)
        return HourlyStats(link, first, tuple(clicks.get(first + n * HOUR, 0) for n in hours))


def _range(since: datetime | None, until: datetime | None, now: datetime) -> tuple[datetime, datetime]:
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
    if end - first > MAX_RANGE:
        message = f"must be at most {MAX_RANGE.days} days before until"
        raise InvalidInput([FieldError("since", "range_too_long", message)])
    return first, end


def _floor(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _ceiling(time: datetime) -> datetime:
    return _floor(time + HOUR - timedelta.resolution)
