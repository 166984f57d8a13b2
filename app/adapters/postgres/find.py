"""
Listings of links in PostgreSQL, and their tags.

A filter that few links pass is answered by its own index, and the few are sorted. One that many pass is best
checked while walking the index of the sort: a page is full after a few rows. So the indexes of the filters
are probed, up to some thousands; for terms, the planner's estimate serves. A walk is bounded, as those that
pass may be far from its beginning; then the many are gathered after all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from app.adapters.find_order import Effort, is_indexed, position, within
from app.adapters.postgres import find_sql, sql
from app.adapters.postgres.pool import Connection
from app.domain.reach import EVERYTHING, Reach
from app.ports import Changed, FoundPage, LinkQuery, LinkSort, Position, TagCount, Totals

# Walks are bounded in rows: some ten milliseconds, and what it may take if the alternative is worse.
EFFORT = Effort(few=6000, many=40_000, walked=8000, long_walked=100_000)
_FOR_FEW_ROWS = b"; ".join(
    b"SET LOCAL %b = %b" % setting
    for setting in (
        (b"enable_seqscan", b"off"),
        (b"enable_memoize", b"off"),
        (b"max_parallel_workers_per_gather", b"0"),
        (b"jit", b"off"),
    )
)


async def find(
    connection: Connection,
    query: LinkQuery,
    *,
    after: Position | None,
    limit: int,
    now: datetime,
    effort: Effort = EFFORT,
) -> FoundPage:
    """Return a page: see `FindStore.find`."""
    wanted = limit + 1
    parameters = {**find_sql.parameters(query, after), "now": now, "wanted": wanted}
    drivers = find_sql.drivers(query)
    if drivers:
        async with connection.transaction():
            # Each statement is for few rows, whatever the planner thinks.
            await connection.execute(_FOR_FEW_ROWS)
            rows = await _by_filters(connection, query, after, drivers, parameters, effort)
    else:
        rows = await _rows(connection, find_sql.walk(query, after, None), parameters)
    links = [sql.link(row) for row in rows[:limit]]
    next_after = position(query, links[-1], rows[limit - 1][-1]) if len(rows) > limit else None
    return FoundPage(tuple(links), next_after)


async def _by_filters(  # noqa: PLR0917
    connection: Connection,
    query: LinkQuery,
    after: Position | None,
    drivers: list[find_sql.Driver],
    parameters: dict[str, Any],
    effort: Effort,
) -> list[sql.Row]:
    is_walked = query.sort is LinkSort.STORED and drivers[0].ordered and len(drivers) == 1
    size, best = (effort.few + 1, drivers[0])
    if not is_walked:
        size, best = await _best(connection, drivers, parameters, effort.few)
    few, walked = _limits(query, best, effort)
    # The estimate is made from a sample of a thousand links, and may be a third of the number.
    if best.estimated is not None and few // 4 < size <= few:
        tried = await _rows(connection, find_sql.walk(query, after, walked // 8), parameters)
        if len(tried) == parameters["wanted"]:
            return tried
        if len(tried) * 8 >= parameters["wanted"]:
            size = few + 1
    if size > few:
        if best.ordered and query.sort is LinkSort.STORED:
            return await _rows(connection, find_sql.stream(query, after, best), parameters)
        size, best = await _best(connection, drivers, parameters, effort.many)
        walked = effort.long_walked if size > effort.many else walked
        rows = await _rows(connection, find_sql.walk(query, after, walked), parameters)
        if len(rows) == parameters["wanted"]:
            return rows
    if query.sort is LinkSort.STORED:
        return await _rows(connection, find_sql.stream(query, after, best), parameters)
    return await _rows(connection, find_sql.gather(query, after, best), parameters)


def _limits(query: LinkQuery, driver: find_sql.Driver, effort: Effort) -> tuple[int, int]:
    """Return how many ids of *driver* are few, and how many links are walked if they are more."""
    if query.sort is not LinkSort.STORED or not is_indexed(query):
        return effort.few, effort.walked
    # Their own table is walked, where a row takes a quarter of the time that it takes with its link.
    return effort.few if driver.estimated is None else effort.few // 3, 5 * effort.walked


async def _best(
    connection: Connection, drivers: list[find_sql.Driver], parameters: dict[str, Any], most: int
) -> tuple[int, find_sql.Driver]:
    """Return the index with the fewest ids, and how many; all with over *most* are alike."""
    counted = [one for one in drivers if one.estimated is None]
    sizes: list[int] = []
    if counted:
        [row] = await _rows(connection, find_sql.probe(counted), {**parameters, "most": most + 1})
        sizes += row
    estimated = [one for one in drivers if one.estimated is not None]
    for driver in estimated:
        [[[plan]]] = await _rows(connection, find_sql.estimate(driver), parameters)
        sizes.append(min(most + 1, plan["Plan"]["Plan Rows"]))
    ranked = [
        (size, not one.ordered, place)
        for place, (size, one) in enumerate(zip(sizes, [*counted, *estimated], strict=True))
    ]
    size, _, place = min(ranked)
    return size, [*counted, *estimated][place]


async def count(connection: Connection, query: LinkQuery, *, now: datetime, limit_s: float) -> int | None:
    """Return how many links pass: see `FindStore.count`."""
    parameters = {**find_sql.parameters(query, None), "now": now}
    row = await _row_in_time(connection, find_sql.counting(query), parameters, limit_s)
    return None if row is None else int(row[0])


async def totals(connection: Connection, *, limit_s: float) -> Totals | None:
    """Add up all links: see `FindStore.totals`."""
    row = await _row_in_time(connection, find_sql.TOTALS, {}, limit_s)
    return None if row is None else Totals(*row)


async def _row_in_time(
    connection: Connection, statement: str, parameters: dict[str, Any], limit_s: float
) -> sql.Row | None:
    limit_ms = max(1, round(limit_s * 1000))
    try:
        async with connection.transaction():
            await connection.execute(b"SET LOCAL jit = off")
            await connection.execute(b"SET LOCAL statement_timeout = %d" % limit_ms)
            [row] = await _rows(connection, statement, parameters)
    except psycopg.errors.QueryCanceled:
        return None
    return row


async def tags(
    connection: Connection, *, after: str | None, limit: int, reach: Reach = EVERYTHING
) -> Sequence[TagCount]:
    """Return tags: see `FindStore.tags`."""
    among = within(reach)
    statement = find_sql.select_tags(among, first=after is None)
    values = {**find_sql.parameters(among, None), "after": after, "limit": limit}
    rows = await _rows(connection, statement, values)
    return [TagCount(*row) for row in rows]


async def retag(
    connection: Connection,
    tag: str,
    new: str | None,
    *,
    limit: int,
    now: datetime,
    reach: Reach,
    origin: str | None,
    actor: str | None,
) -> list[Changed]:
    """Replace a tag: see `FindStore.retag`."""
    among = within(reach)
    asked = {"tag": tag, "new": new, "limit": limit, "now": now, "origin": origin, "actor": actor}
    parameters = {**find_sql.parameters(among, None), **asked}
    while True:
        async with connection.transaction():
            slugs = [row[0] for row in await _rows(connection, find_sql.lock_tagged(among), parameters)]
            rows = await _rows(connection, find_sql.RETAG, {**parameters, "slugs": slugs}) if slugs else []
            stale = [] if rows else await _rows(connection, find_sql.FORGET_STALE, parameters)
        # Others may have taken the tag from all of them before they were locked.
        if rows or not (slugs or stale):
            return [_changed(row) for row in rows]


async def _rows(connection: Connection, statement: str, parameters: dict[str, Any]) -> list[sql.Row]:
    # Not prepared: each execution is planned for its own values.
    cursor = await connection.execute(statement.encode(), parameters, prepare=False, binary=True)
    return await cursor.fetchall()


def _changed(row: sql.Row) -> Changed:
    link = sql.link(row)
    return Changed(link, sql.event(row[-2], link.slug, link.version, row[-1]))
