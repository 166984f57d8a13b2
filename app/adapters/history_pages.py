"""Pages of a link's history, from rows that hold what each change replaced: the same for every database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.link import Link
from app.ports import LinkHistory, LinkState, PastChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A row: a change and the state that it replaced; the names are those of `PastChange`."""

    number: int
    version: int
    replaced: int
    at: datetime
    by: str | None
    is_undo: bool
    state: LinkState


def page_of(
    link: Link, created_by: str | None, rows: Sequence[Replaced], before: int | None, limit: int
) -> LinkHistory:
    """
    Return a page of *limit* changes *before* a number, as `HistoryStore.history`.

    Args:
        rows: newest first, from that number on, and up to two more than *limit*. What a change led to is what
            the next one replaced, and in the end the *link*.
    """
    after = LinkState(link.fields, link.removed_at is not None, link.slug, link.aliases)
    if before is not None:
        if not rows or rows[0].number != before:
            # It is forgotten, and with it what is older.
            return LinkHistory(link=link, created_by=created_by, changes=(), next_before=None)
        after, rows = _known(rows[0].state, after), rows[1:]
    changes: list[PastChange] = []
    for row in rows[:limit]:
        state = _known(row.state, after)
        changes.append(
            PastChange(
                number=row.number,
                version=row.version,
                replaced=row.replaced,
                at=row.at,
                by=row.by,
                is_undo=row.is_undo,
                before=state,
                after=after,
            )
        )
        after = state
    next_before = changes[-1].number if len(rows) > limit else None
    return LinkHistory(link=link, created_by=created_by, changes=tuple(changes), next_before=next_before)


def _known(before: LinkState, after: LinkState) -> LinkState:
    """Return the state *before*; an earlier release noted no slugs, and left them as they were."""
    return before if before.slug is not None else before._replace(slug=after.slug, aliases=after.aliases)
