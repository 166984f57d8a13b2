"""
Listings of links in PostgreSQL, and their tags.

No plan is right for every listing. A filter that many links pass is best checked while walking the index
of the sort: a page is full after a few rows. A filter that few pass is best answered by its own index, and
the few are sorted. The planner knows how many pass, roughly, and not where they are: a tag of the oldest
links may be as frequent as one of the newest. So a bounded walk comes first, and what it does not fill is
gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from app.adapters.find_order import position
from app.adapters.postgres import find_sql, sql
from app.adapters.postgres.pool import Connection
from app.ports import Changed, FoundPage, LinkQuery, Position, TagCount

# Rows that a bounded walk reads for each link of its page, at least and at most: some milliseconds.
_ROWS_A_LINK, _LEAST_ROWS, _MOST_ROWS = 40, 2000, 8000


async def find(
    connection: Connection, query: LinkQuery, *, after: Position | None, limit: int, now: datetime
) -> FoundPage:
    """Return a page: see `FindStore.find`."""
    wanted = limit + 1
    parameters = {**find_sql.parameters(query, after), "now": now, "wanted": wanted}
    rows: list[sql.Row] = []
    is_complete = False
    if query.long_url is None:
        is_complete = not find_sql.is_filtered(query)
        walked = wanted if is_complete else min(max(_ROWS_A_LINK * wanted, _LEAST_ROWS), _MOST_ROWS)
        rows = await _rows(connection, find_sql.walk(query, after, walked), parameters)
    if len(rows) < wanted and not is_complete:
        has_index = find_sql.has_index(query)
        statement = find_sql.stream(query, after) or (
            find_sql.gather(query, after) if has_index else find_sql.walk(query, after, None)
        )
        async with connection.transaction():
            await connection.execute(b"SET LOCAL jit = off")
            if has_index:
                await connection.execute(b"SET LOCAL enable_seqscan = off")
            rows = await _rows(connection, statement, parameters)
    links = [sql.link(row) for row in rows[:limit]]
    next_after = position(query, links[-1], rows[limit - 1][-1]) if len(rows) > limit else None
    return FoundPage(tuple(links), next_after)


async def count(connection: Connection, query: LinkQuery, *, now: datetime, limit_s: float) -> int | None:
    """Return how many links pass: see `FindStore.count`."""
    parameters = {**find_sql.parameters(query, None), "now": now}
    limit_ms = max(1, round(limit_s * 1000))
    try:
        async with connection.transaction():
            await connection.execute(b"SET LOCAL jit = off")
            await connection.execute(b"SET LOCAL statement_timeout = %d" % limit_ms)
            [(found,)] = await _rows(connection, find_sql.counting(query), parameters)
    except psycopg.errors.QueryCanceled:
        return None
    return int(found)


async def tags(connection: Connection, *, after: str | None, limit: int) -> Sequence[TagCount]:
    """Return tags: see `FindStore.tags`."""
    statement = find_sql.SELECT_FIRST_TAGS if after is None else find_sql.SELECT_TAGS
    rows = await _rows(connection, statement, {"after": after, "limit": limit})
    return [TagCount(*row) for row in rows]


async def retag(
    connection: Connection, tag: str, new: str | None, *, limit: int, now: datetime, origin: str | None
) -> list[Changed]:
    """Replace a tag: see `FindStore.retag`."""
    parameters = {"tag": tag, "new": new, "limit": limit, "now": now, "origin": origin}
    while True:
        async with connection.transaction():
            slugs = [row[0] for row in await _rows(connection, find_sql.LOCK_TAGGED, parameters)]
            rows = await _rows(connection, find_sql.RETAG, {**parameters, "slugs": slugs}) if slugs else []
        # Others may have taken the tag from all of them before they were locked.
        if rows or not slugs:
            return [_changed(row) for row in rows]


async def _rows(connection: Connection, statement: str, parameters: dict[str, Any]) -> list[sql.Row]:
    # Not prepared: each execution is planned for its own values.
    cursor = await connection.execute(statement.encode(), parameters, prepare=False, binary=True)
    return await cursor.fetchall()


def _changed(row: sql.Row) -> Changed:
    link = sql.link(row)
    return Changed(link, sql.event(row[-2], link.slug, link.version, row[-1]))
