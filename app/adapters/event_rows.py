"""Events, from rows of the log and of links: the same for every database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from app.domain.link import Link, LinkFields, Slug
from app.domain.webhooks import DisabledReason, EventKind, LinkEvent, kind_of

_CHANGES = (EventKind.CREATED, EventKind.CHANGED, EventKind.REMOVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """
    A row of the log; `link` as it is now, None if it was deleted.

    `fields`, `slug`, `aliases`: what the next change replaced, None if there was none. `changed_at`: of the
    change before.
    """

    position: int
    uid: str
    kind: str
    version: int
    at: datetime
    link: Link | None
    fields: LinkFields | None
    changed_at: datetime | None
    slug: Slug | None
    aliases: tuple[Slug, ...] | None


def event_of(row: EventRow) -> LinkEvent | None:
    """Return the event of *row*, with the link as it was by then; None if there is no such link or kind."""
    kind = kind_of(row.kind)
    if row.link is None or kind is None:
        return None
    updated_at = row.at if kind in _CHANGES else row.changed_at or row.link.created_at
    now = row.link
    link = replace(
        now,
        slug=row.slug or now.slug,
        fields=row.fields or now.fields,
        version=row.version,
        updated_at=updated_at,
        aliases=now.aliases if row.aliases is None else row.aliases,
    )
    return LinkEvent(position=row.position, uid=row.uid, kind=kind, at=row.at, link=link)


def disabled_reason(text: str | None, *, is_enabled: bool) -> DisabledReason | None:
    """Return the reason *text* of a webhook; an earlier release leaves it when it enables one."""
    return None if is_enabled else next((one for one in DisabledReason if one == text), None)


def events_of(rows: Iterable[EventRow]) -> tuple[LinkEvent, ...]:
    """Return the events of *rows*."""
    return tuple(event for row in rows if (event := event_of(row)) is not None)
