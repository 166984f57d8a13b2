"""`HistoryStore`: what links were before each change, and by whom they were changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from app.domain.link import Link, LinkFields, Slug
from app.ports.links import Changed, ExternalIdTaken, VersionMismatch


class LinkState(NamedTuple):
    """
    What a change of a link can concern.

    `slug` and `aliases` are None where they play no part: `HistoryStore.restore` leaves them as they are.
    """

    fields: LinkFields
    removed: bool
    slug: Slug | None = None
    aliases: tuple[Slug, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastChange:
    """
    One change of a link, from the state *before* to the state *after*.

    `number` grows from change to change. `version` is the one that it made, `replaced` the one before.
    `by`: see `app.concurrency.actors`. `is_undo`: it was made by `HistoryStore.restore`.
    """

    number: int
    version: int
    replaced: int
    at: datetime
    by: str | None
    is_undo: bool
    before: LinkState
    after: LinkState


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHistory:
    """
    A link, removed or not, by whom it was made, and one page of its changes, newest first.

    `next_before` continues it; None at the end.
    """

    link: Link
    created_by: str | None
    changes: tuple[PastChange, ...]
    next_before: int | None


class HistoryStore(Protocol):
    """
    The changes of links, each written in the transaction of the change itself, whichever method makes it.

    A change is one of a field that a user sets, or a removal; creates and touches are none. Raises (every
    method): Unavailable.
    """

    async def history(self, slug: Slug, *, before: int | None, limit: int) -> LinkHistory | None:
        """Return the link and up to *limit* of its changes, those *before* a number; None if it is absent."""
        ...

    async def restore(
        self, slug: Slug, state: LinkState, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        """Bring the link to *state*, removed or not, if it is at *expected_version*; None if it is absent."""
        ...

    async def forget_history(self, *, before: datetime, limit: int) -> int:
        """Forget those of the *limit* oldest changes that were made before this time; return how many."""
        ...
