"""`LinkStore`: reads and changes of links. Outcomes that callers expect are values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug
from app.ports.idempotency import IdempotentRequest
from app.ports.outbox import OutboxEvent


@dataclass(frozen=True, slots=True)
class Added:
    """
    `links` is aligned with the request; None where the slug, an alias or the external id was taken.

    `events` holds one entry for each link that was stored.
    """

    links: tuple[Link | None, ...]
    events: tuple[OutboxEvent, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same request was served before; these are its links in their present state."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class RequestMismatch:
    """The idempotency key was used before with another request. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class Changed:
    """
    The link after the change, and the outbox row of the change.

    `ended`: slugs that were the link's until then. They, and its aliases, have outbox rows of their own.
    """

    link: Link
    event: OutboxEvent
    ended: tuple[Slug, ...] = ()


@dataclass(frozen=True, slots=True)
class VersionMismatch:
    """The link is at another version; `current` is its present state. Nothing was changed."""

    current: Link


@dataclass(frozen=True, slots=True)
class ExternalIdTaken:
    """The external id belongs to another link, which is not removed: `link`. Nothing was changed."""

    link: Link


@dataclass(frozen=True, slots=True)
class AddressTaken:
    """The slug is that of another link, which may be removed. Nothing was changed."""

    slug: Slug


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first. `next_after` continues it; None at the end."""

    links: tuple[Link, ...]
    next_after: int | None


class AddressStore(Protocol):
    """The slugs of links. Raises (every method): Unavailable."""

    async def readdress(
        self,
        slug: Slug,
        *,
        to: Slug,
        aliases: Sequence[Slug],
        expected_version: int,
        now: datetime,
        request: IdempotentRequest | None = None,
        is_undo: bool = False,
    ) -> Changed | Replayed | RequestMismatch | VersionMismatch | AddressTaken | None:
        """
        Give the link the slug *to* and these *aliases*, and no others; None if absent or removed.

        Each has to be free, or one that this link has or had. Its visits, their quota and its history
        go on. Slugs that it has no longer stay taken.
        """
        ...


class LinkStore(AddressStore, Protocol):
    """
    Links. Every change writes its outbox row in the same transaction.

    Reads see every acknowledged change. Raises (every method): Unavailable.
    """

    async def add(
        self,
        new: Sequence[NewLink],
        *,
        now: datetime,
        request: IdempotentRequest | None = None,
        removed_before: datetime | None = None,
    ) -> Added | Replayed | RequestMismatch:
        """
        Store *new* links at version 1; one whose slug, alias or external id is taken is skipped.

        A slug is taken even by a removed link, unless that was *removed_before* this time: then the new link
        has the next version, and nothing else is left of the removed one. An external id is taken by a link
        that is not removed. A link with aliases, and one that takes a slug over, comes alone.

        Of two entries with the same slug the first is stored, with the same external id one of them.
        With a *request* it is all or nothing: if one is taken, no link is stored, every entry of the
        answer is None and the request is not recorded. Of concurrent calls with the same *request* one
        stores, the others return `Replayed`.
        """
        ...

    async def get(self, slug: Slug) -> Link | None:
        """Return the link that has *slug* or this alias, removed ones included (see `Link.removed_at`)."""
        ...

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        """Return the links that have these slugs or aliases, removed ones included. At most 1,000 slugs."""
        ...

    async def find_external(self, external_ids: Sequence[str]) -> Mapping[str, Link]:
        """Return the links that have these external ids, without removed ones. At most 1,000 ids."""
        ...

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """Return `Resolution.of` each slug and alias that exists. At most 1,000 slugs."""
        ...

    async def page(self, *, after: int | None, limit: int) -> Page:
        """Return up to *limit* links that are not removed, newest first, continuing *after*."""
        ...

    async def update(
        self,
        slug: Slug,
        fields: LinkFields,
        *,
        expected_version: int,
        now: datetime,
        owner: str | None = None,
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        """
        Replace the fields if the link is at *expected_version*; None if absent or removed.

        Args:
            owner: the link's owner from now on; empty: it has none; None: it stays.
        """
        ...

    async def remove(
        self, slug: Slug, *, expected_version: int | None, now: datetime
    ) -> Changed | VersionMismatch | None:
        """Mark the link removed; see `HistoryStore.restore`. None if absent or already removed."""
        ...

    async def touch(self, slugs: Sequence[Slug]) -> Sequence[Changed]:
        """Raise the version of those that exist, removed ones included; change nothing else."""
        ...
