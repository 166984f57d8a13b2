"""Batches of changes, in the PostgreSQL store."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from psycopg import Rollback, errors

from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, rows_of
from app.domain.errors import Unavailable
from app.domain.link import Link
from app.ports import (
    Answered,
    Batch,
    Changed,
    Decide,
    Found,
    IdempotentRequest,
    RequestMismatch,
    Reusable,
    Wanted,
)

# Any number that no other program uses for advisory locks of this database. Targets share a few locks, as
# the server has room for a few thousand.
_REUSE_LOCKS, _REUSE_SHARES = 46_767_164, 64


async def write_batch(
    connection: Connection,
    wanted: Wanted,
    decide: Decide,
    *,
    request: IdempotentRequest | None,
    now: datetime,
    origin: str | None,
    actor: str | None,
) -> Sequence[Changed] | Answered | RequestMismatch | None:
    """Do what `BatchStore.write_batch` says, once; None if another writer was faster: nothing was stored."""
    outcome: Sequence[Changed] | None = None
    try:
        async with connection.transaction() as transaction:
            if request is not None and (known := await _recorded(connection, request, now)) is not None:
                return known
            found = await _read(connection, wanted)
            batch = await asyncio.to_thread(decide, found)
            outcome = (
                () if batch is None else await _write(connection, batch, {"origin": origin, "actor": actor})
            )
            if batch is None or outcome is None:
                raise Rollback(transaction)
            if request is not None:
                answer = {"scope": request.scope, "key": request.key, "answer": batch.answer}
                await connection.execute(sql.SET_ANSWER.encode(), answer)
    except (errors.UniqueViolation, errors.DeadlockDetected):
        return None
    return outcome


async def _recorded(
    connection: Connection, request: IdempotentRequest, now: datetime
) -> Answered | RequestMismatch | None:
    """Record *request*; return what is known of it if it is there already."""
    memory = {"scope": request.scope, "key": request.key, "fingerprint": request.fingerprint, "slugs": []}
    cursor = await connection.execute(sql.INSERT_REQUEST.encode(), {**memory, "now": now})
    if cursor.rowcount:
        return None
    rows = await rows_of(connection, sql.SELECT_ANSWER, {"scope": request.scope, "key": request.key})
    if not rows:  # `forget_requests` deleted it since the previous statement
        raise Unavailable("postgresql", "the same request was deleted concurrently")
    fingerprint, answer = rows[0]
    return RequestMismatch() if fingerprint != request.fingerprint or answer is None else Answered(answer)


async def _read(connection: Connection, wanted: Wanted) -> Found:
    links: list[Link] = []
    if wanted.slugs or wanted.external_ids:
        statement = sql.LOCK_NAMED if wanted.locks else sql.SELECT_NAMED
        named = {"slugs": list(wanted.slugs), "ids": list(wanted.external_ids)}
        links = [sql.link(row) for row in await rows_of(connection, statement, named)]
    reusable: dict[Reusable, Link] = {}
    if wanted.reusable:
        numbers = {zlib.crc32(one.fields.long_url.encode()) % _REUSE_SHARES for one in wanted.reusable}
        await connection.execute(
            sql.LOCK_REUSABLE.encode(), {"class": _REUSE_LOCKS, "numbers": list(numbers)}
        )
        asked = {"asked": sql.reusable_json(wanted.reusable)}
        rows = await rows_of(connection, sql.SELECT_REUSABLE, asked)
        reusable = {wanted.reusable[row[-1]]: sql.link(row) for row in rows}
    ids = frozenset(wanted.external_ids)
    return Found(
        links={link.slug: link for link in links},
        external_ids={
            link.fields.external_id: link
            for link in links
            if link.removed_at is None and link.fields.external_id in ids and link.fields.external_id
        },
        reusable=reusable,
    )


async def _write(connection: Connection, batch: Batch, whose: sql.Parameters) -> Sequence[Changed] | None:
    """Write *batch*, which is *whose*; None if not all of it could be written."""
    rows: list[sql.Row] = []
    if batch.added:
        values = {**sql.added_values(batch.added), **whose}
        rows += await rows_of(connection, sql.WRITE_ADDED, values)
    if batch.changed:
        values = {"links": sql.batch_json(batch.changed), **whose}
        rows += await rows_of(connection, sql.WRITE_CHANGED, values)
    links = {link.slug: link for link in (*batch.added, *(link for link, _ in batch.changed))}
    if len(rows) < len(links):
        return None
    epoch = rows[0][4] if rows else 0
    if epoch:
        links = {name: replace(link, epoch=epoch) for name, link in links.items()}
    return [Changed(links[row[1]], sql.event(*row[:4])) for row in sorted(rows)]
