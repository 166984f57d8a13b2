"""What happened, in the past tense. Events name links; they never carry their contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.link import Slug


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """*slug* was created, edited, removed or invalidated, and is now at *version*."""

    slug: Slug
    version: int


@dataclass(frozen=True, slots=True)
class LinksMissed:
    """These slugs were asked for and were in no cache."""

    slugs: tuple[Slug, ...]


@dataclass(frozen=True, slots=True)
class ClicksCounted:
    """
    So many redirects of each slug were given, by one process within about a second.

    `batch` is unique: clicks are added up, so what is delivered twice must be known again.
    `hour` is the beginning of an hour in UTC.
    """

    batch: str
    hour: datetime
    clicks: Mapping[Slug, int]


# What the caches have to hear of.
CacheEvent = LinkChanged | LinksMissed
Event = CacheEvent | ClicksCounted
