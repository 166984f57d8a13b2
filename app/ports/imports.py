"""`ImportStore`: links from files, with what they were before, and links for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.link import Link, LinkFields, Slug


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedLink:
    """
    A link to store under *slug* at version 1, if the slug is free.

    `visits` becomes its click total, `spent_visits` what its `max_visits` has given out. `key` names
    the record that it comes from, where the record names no slug: one key becomes one link. Without an
    `owner` no key owns it, whichever imports it.
    """

    slug: Slug
    fields: LinkFields
    created_at: datetime
    visits: int = 0
    spent_visits: int = 0
    aliases: tuple[Slug, ...] = ()
    key: str | None = None
    owner: str | None = None

    def stored(self, now: datetime) -> Link:
        """Return the link that this becomes at *now*."""
        return Link(
            slug=self.slug,
            fields=self.fields,
            version=1,
            created_at=self.created_at,
            updated_at=now,
            visits=self.visits,
            owner=self.owner,
            aliases=self.aliases,
        )


@dataclass(frozen=True, slots=True)
class ExportPage:
    """Links with their spent visits, oldest first. `next_after` continues it; None at the end."""

    links: tuple[tuple[Link, int], ...]
    next_after: int | None


class ImportStore(Protocol):
    """Links in bulk. Raises (every method): Unavailable."""

    async def add_imported(self, links: Sequence[ImportedLink], *, now: datetime) -> Sequence[Link | None]:
        """
        Store *links* in one transaction; the answer is aligned with them.

        Writes no events: no shared cache holds a slug that is new, and an L1 cache holds an absent one
        for two seconds at most (docs/adr/0014).

        None: nothing was stored for this entry, as its slug or an alias is taken, even by a removed link or
        by an earlier entry, or its key is known. At most 1,000 links.
        """
        ...

    async def find_imported(self, keys: Sequence[str]) -> Mapping[str, Slug]:
        """Return the slugs of the records that `add_imported` has stored under *keys*, whenever that was."""
        ...

    async def spent_visits(self, slugs: Sequence[Slug]) -> Mapping[Slug, int]:
        """Return how many visits the limit of each link has given out; unknown slugs are left out."""
        ...

    async def export_page(self, *, after: int | None, limit: int) -> ExportPage:
        """Return up to *limit* links that are not removed, oldest first, continuing *after*."""
        ...
