"""A link, the part of it a user may set, and what a redirect needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType

import msgspec

Slug = NewType("Slug", str)

REDIRECT_CODES = (301, 302, 307, 308)
DEFAULT_REDIRECT_CODE = 302
# JSON numbers are doubles to most who read them.
MAX_MAX_VISITS = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFields:
    """
    What a user decides about a link.

    `long_url` is canonical (see `app.domain.target`) and is emitted as stored.
    Times are timezone-aware UTC. `max_visits` is how many redirects are given in all while there
    is such a limit; None: any number.
    """

    long_url: str
    title: str = ""
    tags: tuple[str, ...] = ()
    redirect_code: int = DEFAULT_REDIRECT_CODE
    valid_from: datetime | None = None
    expires_at: datetime | None = None
    forward_query: bool = False
    enabled: bool = True
    max_visits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """A link that is to be stored under *slug*, if nobody else has it."""

    slug: Slug
    fields: LinkFields


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """
    A stored link.

    `version` starts at 1 and grows by one with every change, removal included; slugs are
    never reused, so (slug, version) names one state for ever; but for `visits`, the redirects
    counted so far, which trail by seconds and change no version.
    """

    slug: Slug
    fields: LinkFields
    version: int
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None = None
    visits: int = 0


class State(Enum):
    """What a visitor meets."""

    LIVE = "live"
    GONE = "gone"
    ABSENT = "absent"


class Resolution(msgspec.Struct, frozen=True, gc=False):
    """
    What a redirect needs to know about one slug: the unit that every cache holds.

    `version` is the link's; 0 means that the primary store knows no such slug, so any real
    link beats it. `valid_from` and `expires_at` are unix seconds and are checked at every
    answer: no cache's time to live is trusted with them. `metered`: each redirect needs a visit of
    the link's `max_visits` (see `app.service.visits`).
    """

    slug: Slug
    version: int
    long_url: str | None = None
    redirect_code: int = DEFAULT_REDIRECT_CODE
    forward_query: bool = False
    valid_from: float | None = None
    expires_at: float | None = None
    metered: bool = False

    @staticmethod
    def of(link: Link) -> Resolution:
        """Everything a redirect needs of *link*; a removed or disabled link has no target."""
        fields = link.fields
        if link.removed_at is not None or not fields.enabled:
            return Resolution(link.slug, link.version)
        return Resolution(
            link.slug,
            link.version,
            fields.long_url,
            fields.redirect_code,
            fields.forward_query,
            fields.valid_from.timestamp() if fields.valid_from else None,
            fields.expires_at.timestamp() if fields.expires_at else None,
            metered=fields.max_visits is not None,
        )

    @staticmethod
    def absent(slug: Slug) -> Resolution:
        """The primary store knows no such slug."""
        return Resolution(slug, 0)

    def state(self, now: float) -> State:
        """What a visitor meets at *now* (unix seconds)."""
        if self.version == 0:
            return State.ABSENT
        if self.long_url is None or (self.expires_at is not None and now >= self.expires_at):
            return State.GONE
        if self.valid_from is not None and now < self.valid_from:
            return State.ABSENT
        return State.LIVE
