"""`FindStore`: lists links by filters, terms and sorts, and changes their tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol

from app.domain.link import Link
from app.domain.reach import EVERYTHING, Reach
from app.ports.links import Changed

MAX_RETAGGED = 200


class LinkSort(Enum):
    """
    What a listing is ordered by; equal keys by the order in which links were stored.

    `STORED` is that order itself. Titles and slugs compare by code points, slugs of the default domain first.
    Clicks are the folded totals, and equal ones are ordered by slug.
    """

    STORED = "stored"
    CREATED = "created"
    UPDATED = "updated"
    CLICKS = "clicks"
    TITLE = "title"
    SLUG = "slug"


class LinkCondition(Enum):
    """What keeps a link from redirecting, the first that does; `max_visits` plays no part."""

    LIVE = "live"
    PENDING = "pending"
    EXPIRED = "expired"
    DISABLED = "disabled"


class TimeRange(NamedTuple):
    """Times from *since* on and before *until*, timezone-aware; None is open."""

    since: datetime | None = None
    until: datetime | None = None


_ANY_TIME = TimeRange()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkQuery:
    """
    Which links, and in which order. A link has to pass every filter; what is empty filters nothing.

    Args:
        terms: folded (see `app.domain.search`); each is part of the searched text of the link.
        tags_any, tags_all, tags_none: of the first at least one, of the second all, of the third none.
        host: of the target, in canonical form, without a port.
        long_url: in canonical form.
        conditions: at least one of them is that of the link at the time of the call.
        domain: the id of the link's domain.
        domains: the ids of several, of which it is one.
        owner: of the link; empty: links without one.
        expires: a link without an end is in no range of `expires`.
    """

    terms: tuple[str, ...] = ()
    tags_any: tuple[str, ...] = ()
    tags_all: tuple[str, ...] = ()
    tags_none: tuple[str, ...] = ()
    host: str | None = None
    long_url: str | None = None
    conditions: tuple[LinkCondition, ...] = ()
    domain: int | None = None
    domains: tuple[int, ...] = ()
    owner: str | None = None
    created: TimeRange = _ANY_TIME
    updated: TimeRange = _ANY_TIME
    expires: TimeRange = _ANY_TIME
    sort: LinkSort = LinkSort.STORED
    descending: bool = True


class Position(NamedTuple):
    """
    Where a page ended: the key of its last link, and what orders equal keys.

    Times are microseconds since 1970. The key of `STORED` and of `SLUG` orders alone: `tie` repeats it.
    """

    key: int | str
    tie: int | str


@dataclass(frozen=True, slots=True)
class FoundPage:
    """One page in the order of its query. `next_after` continues it; None at the end."""

    links: tuple[Link, ...]
    next_after: Position | None


@dataclass(frozen=True, slots=True)
class TagCount:
    """A tag, and how many links that are not removed have it."""

    tag: str
    links: int


@dataclass(frozen=True, slots=True)
class Totals:
    """How many links there are that are not removed, and the clicks of them together."""

    links: int
    clicks: int


class FindStore(Protocol):
    """
    Listings of links that are not removed.

    Every page is one look at the store. While links move, a link whose key changes between two pages may
    be on both or on neither; any other link is on exactly one. Raises (every method): Unavailable.
    """

    async def find(self, query: LinkQuery, *, after: Position | None, limit: int, now: datetime) -> FoundPage:
        """Return up to *limit* links that pass *query* at *now*, continuing *after* one of its pages."""
        ...

    async def count(self, query: LinkQuery, *, now: datetime, limit_s: float) -> int | None:
        """Return how many links pass *query* at *now*; None if counting takes longer than *limit_s*."""
        ...

    async def totals(self, *, limit_s: float) -> Totals | None:
        """Return the totals of all links; None if adding them up takes longer than *limit_s*."""
        ...

    async def tags(self, *, after: str | None, limit: int, reach: Reach = EVERYTHING) -> Sequence[TagCount]:
        """Return up to *limit* tags of links within *reach* by their code points, those *after* it."""
        ...

    async def retag(
        self, tag: str, new: str | None, *, limit: int, now: datetime, reach: Reach = EVERYTHING
    ) -> Sequence[Changed]:
        """
        Replace *tag* by *new* on up to *limit* links that have it, at most `MAX_RETAGGED`; None removes it.

        A link that has *new* already keeps it once. Links beyond *reach* stay as they are. Empty if no other
        has *tag*. Call it until then.
        """
        ...
