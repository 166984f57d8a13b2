"""A dry run: an import that reads the store, and writes to a scratch one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from app.domain.events import LinkChanged
from app.domain.link import Link, LinkFields, Slug
from app.ports import Changed, ExternalIdTaken, ImportedLink, OutboxEvent, VersionMismatch
from app.service.link_import import Target


class Rehearsal(Target):
    """
    Answers as the store would after the rows so far; the store itself stays as it is.

    Args:
        scratch: an empty store, for what the import would store and change.
    """

    def __init__(self, store: Target, scratch: Target) -> None:
        self._store = store
        self._scratch = scratch

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        """Return the links as the import would leave them."""
        return {**await self._store.get_many(slugs), **await self._scratch.get_many(slugs)}

    async def find_external(self, external_ids: Sequence[str]) -> Mapping[str, Link]:
        """Return the links that would have these external ids."""
        holders = await self._store.find_external(external_ids)
        rehearsed = await self._scratch.get_many([link.slug for link in holders.values()])
        kept = {name: link for name, link in holders.items() if link.slug not in rehearsed}
        return {**kept, **await self._scratch.find_external(external_ids)}

    async def find_imported(self, keys: Sequence[str]) -> Mapping[str, Slug]:
        """Return what earlier imports stored: a key comes once in each."""
        return await self._store.find_imported(keys)

    async def add_imported(self, links: Sequence[ImportedLink], *, now: datetime) -> Sequence[Link | None]:
        """Add to the scratch store; the import has asked whether the slugs are free."""
        return await self._scratch.add_imported(links, now=now)

    async def update(
        self, slug: Slug, fields: LinkFields, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        """Change the link in the scratch store, where its first change puts it."""
        [copy] = await self._scratch.add_imported(
            [ImportedLink(slug=slug, fields=fields, created_at=now)], now=now
        )
        if copy is None:
            return await self._scratch.update(slug, fields, expected_version=expected_version, now=now)
        return Changed(copy, OutboxEvent(0, LinkChanged(slug, copy.version)))
