"""Events, in the past tense. They name links and never carry their contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar, assert_never

from app.domain.link import Slug
from app.domain.origin import Origin
from app.domain.visits import LinkVisits


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """
    *slug* was created, edited, removed or invalidated, and is at *version* now.

    `committed_at`: unix seconds, None if unknown. `origin`: the recorded request it comes from, if any.
    Two events that differ in these alone are equal.
    """

    slug: Slug
    version: int
    committed_at: float | None = field(default=None, compare=False, repr=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LinksMissed:
    """Redirects of these slugs missed every cache; `origin` as in `LinkChanged`."""

    slugs: tuple[Slug, ...]
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ClicksCounted:
    """
    Clicks by slug, counted by one process within about a second.

    `batch` is a unique id: it makes adding a batch idempotent. `hour` is the start of an hour in
    UTC.
    """

    batch: str
    hour: datetime
    clicks: Mapping[Slug, int]


@dataclass(frozen=True, slots=True)
class VisitsDescribed:
    """
    What visits looked like to one process within about a second; `batch` and `hour` as in `ClicksCounted`.

    Beside that, not in its place: totals do not wait for the reading of headers.
    """

    batch: str
    hour: datetime
    visits: Mapping[Slug, LinkVisits]


# Events after which a cache may hold an old entry, or none.
CacheEvent = LinkChanged | LinksMissed
# What a gateway counts, and keeps on its disk if the broker does not take it.
Counted = ClicksCounted | VisitsDescribed
Event = CacheEvent | Counted

E = TypeVar("E", bound=Event)


class WorkQueue(StrEnum):
    """
    The queues that workers consume, by their names on the broker.

    Clicks have a queue of their own: adding them up is slower than a cache write, and an edit must
    not wait behind a backlog of hours. So have descriptions of visits, which totals do not wait for.
    """

    CACHE = "hopgate.cache"
    CLICKS = "hopgate.clicks"
    VISITS = "hopgate.visits"


def work_queue(event: Event) -> WorkQueue:
    """Return the queue that *event* belongs in."""
    match event:
        case LinkChanged() | LinksMissed():
            return WorkQueue.CACHE
        case ClicksCounted():
            return WorkQueue.CLICKS
        case VisitsDescribed():
            return WorkQueue.VISITS
        case _:
            assert_never(event)


def origin_of(event: Event) -> Origin | None:
    """Return which recorded request *event* comes from; clicks are of too many."""
    match event:
        case LinkChanged() | LinksMissed():
            return event.origin
        case ClicksCounted() | VisitsDescribed():
            return None
        case _:
            assert_never(event)


def with_origin(event: E, origin: Origin | None) -> E:
    """Return *event* with *origin*; clicks have none."""
    return event if isinstance(event, ClicksCounted | VisitsDescribed) else replace(event, origin=origin)
