"""Batches of changes, in the SQLite store. Its one writer lets nothing come between reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from app.adapters.sqlite import sql
from app.adapters.sqlite.writer import NothingStored
from app.domain.link import Link, Slug
from app.domain.link_key import AFTER_OTHERS, DEFAULT_ID, keys_between
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


def write_batch(
    db: apsw.Connection,
    wanted: Wanted,
    decide: Decide,
    *,
    request: IdempotentRequest | None,
    now: datetime,
    origin: str | None,
    actor: str | None,
) -> Sequence[Changed] | Answered | RequestMismatch:
    """
    Do what `BatchStore.write_batch` says.

    Raises:
        NothingStored: a slug was taken meanwhile.
    """
    if request is not None and (known := _answer(db, request)) is not None:
        return known
    batch = decide(_read(db, wanted))
    if batch is None:
        return ()
    changes = _write(db, batch, origin, actor)
    if request is not None:
        values = (
            request.scope,
            request.key,
            request.fingerprint,
            sql.json([]),
            sql.micros(now),
            batch.answer,
        )
        db.execute(sql.INSERT_ANSWER, values)
    return changes


def select_external(db: apsw.Connection, external_ids: Sequence[str]) -> dict[str, Link]:
    """Return the links that have *external_ids*, without removed ones."""
    links = map(sql.link, sql.rows(db, sql.SELECT_EXTERNAL, (sql.json(external_ids),)))
    return {link.fields.external_id or "": link for link in links}


def _answer(db: apsw.Connection, request: IdempotentRequest) -> Answered | RequestMismatch | None:
    rows = sql.rows(db, sql.SELECT_ANSWER, (request.scope, request.key))
    if not rows:
        return None
    fingerprint, answer = rows[0]
    return RequestMismatch() if fingerprint != request.fingerprint or answer is None else Answered(answer)


def _read(db: apsw.Connection, wanted: Wanted) -> Found:
    links: dict[Slug, Link] = {}
    if wanted.slugs:
        found = map(sql.link, sql.rows(db, sql.SELECT_NAMED, (sql.json(wanted.slugs),)))
        links = {link.slug: link for link in found}
    external_ids = select_external(db, wanted.external_ids) if wanted.external_ids else {}
    reusable: dict[Reusable, Link] = {}
    for asked in wanted.reusable:
        first, end = keys_between(asked.domain)
        later = AFTER_OTHERS if asked.domain == DEFAULT_ID else None
        bounds = {"first": first, "end": end, "later": later, "owner": asked.owner}
        values = {**sql.field_values(asked.fields), **bounds}
        rows = sql.rows(db, sql.SELECT_REUSABLE, values)
        if rows:
            reusable[asked] = sql.link(rows[0])
    links |= {link.slug: link for link in external_ids.values()}
    return Found(links=links, external_ids=external_ids, reusable=reusable)


def _write(db: apsw.Connection, batch: Batch, origin: str | None, actor: str | None) -> list[Changed]:
    events = _add(db, batch.added, origin, actor) if batch.added else []
    for link, replaced in batch.changed:
        db.execute(sql.WRITE_CHANGED, {**sql.link_values(link), "replaced": replaced, "actor": actor})
        if not db.changes():
            raise NothingStored
    changed = [link for link, _ in batch.changed]
    events += [sql.rows(db, sql.INSERT_EVENT, (one.slug, one.version, origin))[0][0] for one in changed]
    return [
        Changed(link, sql.event(event_id, link.slug, link.version, origin))
        for link, event_id in zip((*batch.added, *changed), events, strict=True)
    ]


def _add(db: apsw.Connection, links: Sequence[Link], origin: str | None, actor: str | None) -> list[int]:
    """Store *links*, which are new, and return the ids of their outbox rows."""
    db.execute(sql.STAGE)
    db.executemany(sql.FILL_STAGE, map(sql.link_values, links))
    db.execute(sql.WRITE_ADDED, (actor,))
    if db.changes() < len(links):
        raise NothingStored
    ids = [row[0] for row in sql.rows(db, sql.INSERT_EVENTS, (origin,))]
    db.execute(sql.CLEAR_STAGE)
    return ids
