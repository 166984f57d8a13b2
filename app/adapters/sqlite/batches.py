"""Batches of changes, in the SQLite store. Its one writer lets nothing come between reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from app.adapters.sqlite import sql
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
) -> Sequence[Changed] | Answered | RequestMismatch | None:
    """Do what `BatchStore.write_batch` says; None if a slug was taken meanwhile: nothing was stored."""
    if request is not None and (known := _answer(db, request)) is not None:
        return known
    batch = decide(_read(db, wanted))
    if batch is None:
        return ()
    db.execute("SAVEPOINT batch")
    changes = _write(db, batch, origin, actor)
    if changes is None:
        db.execute("ROLLBACK TO batch")
    elif request is not None:
        values = (
            request.scope,
            request.key,
            request.fingerprint,
            sql.json([]),
            sql.micros(now),
            batch.answer,
        )
        db.execute(sql.INSERT_ANSWER, values)
    db.execute("RELEASE batch")
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


def _write(db: apsw.Connection, batch: Batch, origin: str | None, actor: str | None) -> list[Changed] | None:
    for link in batch.added:
        db.execute(sql.WRITE_ADDED, {**sql.link_values(link), "actor": actor})
        if not db.changes():
            return None
    for link, replaced in batch.changed:
        db.execute(sql.WRITE_CHANGED, {**sql.link_values(link), "replaced": replaced, "actor": actor})
        if not db.changes():
            return None
    links = [*batch.added, *(link for link, _ in batch.changed)]
    events = [
        sql.event(
            sql.rows(db, sql.INSERT_EVENT, (link.slug, link.version, origin))[0][0],
            link.slug,
            link.version,
            origin,
        )
        for link in links
    ]
    return [Changed(link, event) for link, event in zip(links, events, strict=True)]
