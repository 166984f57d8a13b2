"""Events, in the past tense. They name links and never carry their contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from app.domain.link import Slug


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """
    *slug* was created, edited, removed or invalidated, and is at *version* now.

    `committed_at`: unix seconds, None if unknown. Two events that differ in it alone are equal.
    """

    slug: Slug
    version: int
    committed_at: float | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LinksMissed:
    """Redirects of these slugs missed every cache."""

    slugs: tuple[Slug, ...]


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


# Events after which a cache may hold an old entry, or none.
CacheEvent = LinkChanged | LinksMissed
Event = CacheEvent | ClicksCounted


class WorkQueue(StrEnum):
    """
    The queues that workers consume, by their names on the broker.

    Clicks have a queue of their own: adding them up is slower than a cache write, and an edit must
    not wait behind a backlog of hours.
    """

    CACHE = "hopgate.cache"
    CLICKS = "hopgate.clicks"


def work_queue(event: Event) -> WorkQueue:
    """Return the queue that *event* belongs in."""
    match event:
        case LinkChanged() | LinksMissed():
            return WorkQueue.CACHE
        case ClicksCounted():
            return WorkQueue.CLICKS
        case _:
            assert_never(event)
