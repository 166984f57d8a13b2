"""A link, the fields that a user sets, and the resolution that a redirect needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType

import msgspec

Slug = NewType("Slug", str)

REDIRECT_CODES = (301, 302, 307, 308)
DEFAULT_REDIRECT_CODE = 302
# Most JSON parsers read numbers as doubles.
MAX_MAX_VISITS = 2**53 - 1
# Each change of a link tells the caches of each of them.
MAX_ALIASES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFields:
    """
    The fields of a link that a user sets.

    `long_url` is canonical (see `app.domain.target`) and is emitted as stored. Times are
    timezone-aware UTC. `max_visits` bounds the redirects served in total; None: no limit.
    `external_id` is the link's name in another system; no two links have the same, unless removed.
    `override_query`: the query that `forward_query` adds takes the place of the target's parameters of the
    same names.
    `expired_url` is where visitors go once the link is expired, disabled or without visits, in canonical
    form; None: where those of its domain go. `robots` is the value of `X-Robots-Tag`.
    `analytics`: statistics describe its visits; otherwise they are only counted.
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
    external_id: str | None = None
    override_query: bool = False
    expired_url: str | None = None
    robots: str | None = None
    analytics: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """A link to store under *slug* and its *aliases*, if all of them are free."""

    slug: Slug
    fields: LinkFields
    aliases: tuple[Slug, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """
    A stored link.

    `version` starts at 1 and grows with every change, removal and undo included. A slug that was another
    link's starts after the last version of that, so (slug, version) identifies one state permanently. Except
    `visits`, the click total (the API's name for it): it trails by seconds and changes no version.

    `aliases` are further slugs of it, which have its version (docs/adr/0025). `alias_of`: this is no link,
    but what the store keeps for an alias of that one; only batches read it.

    `owner` is the id of the API key that made the link, or that it was handed to; None: no key owns it.

    `epoch` is the history that the link was read from; see `app.ports.Store.epoch`. Versions compare
    within one epoch only.
    """

    slug: Slug
    fields: LinkFields
    version: int
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None = None
    visits: int = 0
    epoch: int = 0
    owner: str | None = None
    aliases: tuple[Slug, ...] = ()
    alias_of: Slug | None = None


class LinkState(Enum):
    """How a redirect answers for the link."""

    LIVE = "live"
    GONE = "gone"
    ABSENT = "absent"


class Resolution(msgspec.Struct, frozen=True, gc=False):
    """
    The part of a link that a redirect needs: the unit that every cache holds.

    `version` is the link's; 0 means that the primary store has no such slug, so any real link
    replaces it. `valid_from` and `expires_at` are unix seconds and are checked at every redirect,
    independent of any cache's time to live. `metered`: each redirect spends one visit of the
    link's visit quota (see `app.service.visit_quota`). `epoch` is the link's; that of an absent slug
    has no meaning. `expired_url` and `robots` are the link's, unless it is removed. `spends`: of an alias,
    the slug of the link whose visits are spent.
    """

    slug: Slug
    version: int
    long_url: str | None = None
    redirect_code: int = DEFAULT_REDIRECT_CODE
    forward_query: bool = False
    valid_from: float | None = None
    expires_at: float | None = None
    metered: bool = False
    epoch: int = 0
    override_query: bool = False
    expired_url: str | None = None
    robots: str | None = None
    spends: Slug | None = None

    @staticmethod
    def of(link: Link, slug: Slug | None = None) -> Resolution:
        """
        Return the resolution of *link*, or of its alias *slug*; a removed or disabled link has no target.

        Any other slug was one of the link's until now, and is gone.
        """
        fields, slug = link.fields, slug or link.slug
        is_alias = slug != link.slug
        if link.removed_at is not None or (is_alias and slug not in link.aliases):
            return Resolution(slug, link.version, epoch=link.epoch)
        if not fields.enabled:
            return Resolution(
                slug,
                link.version,
                epoch=link.epoch,
                expired_url=fields.expired_url,
                robots=fields.robots,
            )
        metered = fields.max_visits is not None
        return Resolution(
            slug=slug,
            version=link.version,
            long_url=fields.long_url,
            redirect_code=fields.redirect_code,
            forward_query=fields.forward_query,
            valid_from=fields.valid_from.timestamp() if fields.valid_from else None,
            expires_at=fields.expires_at.timestamp() if fields.expires_at else None,
            metered=metered,
            epoch=link.epoch,
            override_query=fields.override_query,
            expired_url=fields.expired_url,
            robots=fields.robots,
            spends=link.slug if metered and is_alias else None,
        )

    @staticmethod
    def absent(slug: Slug) -> Resolution:
        """Return the resolution of a slug that the primary store does not have."""
        return Resolution(slug, 0)

    def replaces(self, held: Resolution) -> bool:
        """
        Return whether a cache that holds *held* takes this one.

        A link of another epoch is taken whatever its version: one of the two is of a history that the
        store has left, and readers know which. An absent slug replaces no link.
        """
        if self.version > 0 and held.version > 0 and self.epoch != held.epoch:
            return True
        return self.version > held.version

    def state(self, now: float) -> LinkState:
        """Return how a redirect answers at *now* (unix seconds)."""
        if self.version == 0:
            return LinkState.ABSENT
        if self.long_url is None or (self.expires_at is not None and now >= self.expires_at):
            return LinkState.GONE
        if self.valid_from is not None and now < self.valid_from:
            return LinkState.ABSENT
        return LinkState.LIVE
