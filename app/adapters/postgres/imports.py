"""Links from files, in the PostgreSQL store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg import Rollback

from app.adapters.postgres import sql
from app.adapters.postgres.aliases import put_aliases
from app.adapters.postgres.pool import Connection, rows_of
from app.domain.link import Link, Slug
from app.ports import ImportedLink


async def insert_imported(
    connection: Connection, links: Sequence[ImportedLink], now: datetime, actor: str | None
) -> list[Link | None]:
    """Store those of *links* whose slug is free and whose key is new; aligned, None for the others."""
    async with connection.transaction():
        new = await _claim_keys(connection, links, now)
        # Of two entries with the same slug, the first is the one to store.
        asked: dict[Slug, ImportedLink] = {}
        for one in new:
            asked.setdefault(one.slug, one)
        plain = [one for one in asked.values() if not one.aliases]
        stored = await _insert_links(connection, plain, now, actor) if plain else set()
        for one in asked.values():
            if one.aliases and await _insert_aliased(connection, one, now, actor):
                stored.add(one.slug)
        unused = [one.key for one in new if one.key and not (one.slug in stored and asked[one.slug] is one)]
        if unused:
            await connection.execute(sql.DELETE_KEYS.encode(), {"keys": unused})
    return [one.stored(now) if one.slug in stored and asked[one.slug] is one else None for one in links]


async def _claim_keys(
    connection: Connection, links: Sequence[ImportedLink], now: datetime
) -> list[ImportedLink]:
    """Record the keys of *links*; return those that have a new key, or none."""
    keyed: dict[str, ImportedLink] = {}
    for one in links:
        if one.key is not None:
            keyed.setdefault(one.key, one)
    if not keyed:
        return list(links)
    values = {"keys": list(keyed), "slugs": [one.slug for one in keyed.values()], "now": now}
    new = {key for (key,) in await rows_of(connection, sql.INSERT_KEYS, values)}
    return [one for one in links if one.key is None or (one.key in new and keyed[one.key] is one)]


async def _insert_aliased(
    connection: Connection, one: ImportedLink, now: datetime, actor: str | None
) -> bool:
    """Store *one* with its aliases; False if a slug was taken."""
    is_stored = False
    async with connection.transaction() as transaction:
        is_stored = bool(await _insert_links(connection, [one], now, actor)) and await put_aliases(
            connection, one.slug, one.aliases, now
        )
        if not is_stored:
            raise Rollback(transaction)
    return is_stored


async def _insert_links(
    connection: Connection, links: Sequence[ImportedLink], now: datetime, actor: str | None
) -> set[Slug]:
    """Store *links*, each slug once; return the slugs that were free."""
    values = sql.imported_json([(one.stored(now), one.spent_visits) for one in links])
    rows = await rows_of(connection, sql.INSERT_IMPORTED, {"links": values, "actor": actor})
    return {slug for (slug,) in rows}
