"""The history of links in the PostgreSQL store; a trigger writes it."""

from __future__ import annotations

from datetime import datetime

from app.adapters.history_pages import Replaced, page_of
from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, rows_of
from app.domain.link import Slug
from app.ports import LinkHistory, LinkState

_FIELDS = ", ".join(sql.FIELDS)
_NEWEST = 2**63 - 1

_SELECT_LINK = f"SELECT {sql.LINK}, created_by, id FROM links WHERE slug = {sql.NAMED}"
_SELECT_PAST = f"""
    SELECT {_FIELDS}, id, version, replaced, changed_at, changed_by, is_undo, was_removed, former_slug,
        aliases
    FROM link_history
    WHERE link = %(link)s AND id <= %(first)s ORDER BY id DESC LIMIT %(limit)s
"""
# Both are read from one snapshot.
_SNAPSHOT = b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
RESTORE = sql.changing(f"""
    UPDATE links SET {sql.SET_FIELDS}, version = version + 1, updated_at = %(now)s, {sql.CHANGED_BY},
        removed_at = CASE WHEN %(removed)s::boolean THEN %(now)s::timestamptz END
    WHERE slug = %(slug)s
""")
MARK_UNDO = """
    UPDATE link_history SET is_undo = true
    WHERE link = (SELECT id FROM links WHERE slug = %(slug)s) AND version = %(version)s
"""
FORGET = """
    DELETE FROM link_history WHERE changed_at < %(before)s
        AND id = ANY(ARRAY(SELECT id FROM link_history ORDER BY id LIMIT %(limit)s))
"""


async def page(connection: Connection, slug: Slug, *, before: int | None, limit: int) -> LinkHistory | None:
    """As `HistoryStore.history`."""
    async with connection.transaction():
        await connection.execute(_SNAPSHOT)
        links = await rows_of(connection, _SELECT_LINK, {"slug": slug})
        if not links:
            return None
        *link, created_by, link_id = links[0]
        first = _NEWEST if before is None else before
        asked = {"link": link_id, "first": first, "limit": limit + 2}
        past = await rows_of(connection, _SELECT_PAST, asked)
    return page_of(sql.link(tuple(link)), created_by, [_replaced(row) for row in past], before, limit)


def state_values(state: LinkState, now: datetime) -> sql.Parameters:
    """Return *state* as `RESTORE` takes it."""
    return {**sql.field_values(state.fields), "now": now, "removed": state.removed}


def _replaced(row: sql.Row) -> Replaced:
    number, version, replaced, changed_at, changed_by, is_undo, was_removed, slug, aliases = row[
        len(sql.FIELDS) :
    ]
    return Replaced(
        number=number,
        version=version,
        replaced=replaced,
        at=changed_at,
        by=changed_by,
        is_undo=is_undo,
        state=LinkState(sql.fields_in(row), was_removed, slug, None if aliases is None else tuple(aliases)),
    )
