"""The history of links in the SQLite store; a trigger writes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import apsw

from app.adapters.history_pages import Replaced, page_of
from app.adapters.sqlite import sql
from app.domain.link import Link, Slug
from app.ports import LinkHistory, LinkState

_FIELDS = ", ".join(sql.FIELDS)
_NEWEST = 2**63 - 1

_SELECT_LINK = f"SELECT {sql.SELECTED}, created_by, id FROM links WHERE slug = {sql.NAMED}"
_SELECT_PAST = f"""
    SELECT {_FIELDS}, id, version, replaced, changed_at, changed_by, is_undo, was_removed, former_slug,
        aliases
    FROM link_history
    WHERE link = ? AND id <= ? ORDER BY id DESC LIMIT ?
"""
RESTORE = f"""
    UPDATE links SET {", ".join(f"{name} = :{name}" for name in sql.FIELDS)}, version = version + 1,
        updated_at = :now, removed_at = :removed_at, {sql.CHANGED_BY}
    WHERE slug = :slug
"""
_MARK_UNDO = """
    UPDATE link_history SET is_undo = 1
    WHERE link = (SELECT id FROM links WHERE slug = ?1) AND version = ?2
"""
_FORGET = """
    DELETE FROM link_history WHERE changed_at < ?1
        AND id IN (SELECT id FROM link_history ORDER BY id LIMIT ?2)
"""


def page(db: apsw.Connection, slug: Slug, before: int | None, limit: int) -> LinkHistory | None:
    """As `HistoryStore.history`."""
    db.execute("BEGIN")  # both are read from one snapshot
    try:
        links = sql.rows(db, _SELECT_LINK, (slug,))
        if not links:
            return None
        *link, created_by, link_id = links[0]
        past = sql.rows(db, _SELECT_PAST, (link_id, _NEWEST if before is None else before, limit + 2))
    finally:
        db.execute("COMMIT")
    return page_of(sql.link(tuple(link)), created_by, [_replaced(row) for row in past], before, limit)


def state_values(state: LinkState, now: datetime) -> dict[str, Any]:
    """Return *state* as `RESTORE` takes it."""
    now_us = sql.micros(now)
    return {**sql.field_values(state.fields), "now": now_us, "removed_at": now_us if state.removed else None}


def mark_undo(db: apsw.Connection, link: Link) -> None:
    """Note that *link* is at its version by an undo."""
    db.execute(_MARK_UNDO, (link.slug, link.version))


def forget(db: apsw.Connection, *, before: datetime, limit: int) -> int:
    """As `HistoryStore.forget_history`."""
    db.execute(_FORGET, (sql.micros(before), limit))
    return db.changes()


def _replaced(row: sql.Row) -> Replaced:
    number, version, replaced, changed_at, changed_by, is_undo, was_removed, slug, aliases = row[
        len(sql.FIELDS) :
    ]
    return Replaced(
        number=number,
        version=version,
        replaced=replaced,
        at=cast("datetime", sql.time(changed_at)),
        by=changed_by,
        is_undo=bool(is_undo),
        state=LinkState(
            sql.fields_in(row), bool(was_removed), slug, None if aliases is None else sql.slugs(aliases)
        ),
    )
