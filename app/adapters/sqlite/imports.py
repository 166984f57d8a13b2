"""Links from files, in the SQLite store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from app.adapters.sqlite import sql
from app.adapters.sqlite.aliases import put_aliases
from app.domain.link import Link, Slug
from app.ports import IMPORT_SCOPE, ImportedLink


def insert(
    db: apsw.Connection, links: Sequence[ImportedLink], now: datetime, actor: str | None
) -> list[Link | None]:
    """Store those of *links* whose slug is free and whose key is new; aligned, None for the others."""
    known = set(select_keys(db, [one.key for one in links if one.key is not None]))
    answer: list[Link | None] = []
    for one in links:
        is_stored = one.key not in known and _insert_link(db, one, now, actor)
        if is_stored and one.key is not None:
            known.add(one.key)
            memory = (IMPORT_SCOPE, one.key, b"", sql.json([one.slug]), sql.micros(now))
            db.execute(sql.INSERT_REQUEST, memory)
        answer.append(one.stored(now) if is_stored else None)
    return answer


def select_keys(db: apsw.Connection, keys: Sequence[str]) -> dict[str, Slug]:
    """Return the slugs of the records that are stored under *keys*."""
    return dict(sql.rows(db, sql.SELECT_IMPORTED, (sql.json(keys),))) if keys else {}


def _insert_link(db: apsw.Connection, one: ImportedLink, now: datetime, actor: str | None) -> bool:
    values = {
        "slug": one.slug,
        "created_at": sql.micros(one.created_at),
        "now": sql.micros(now),
        "spent_visits": one.spent_visits,
        "owner": one.owner or "",
        "actor": actor,
        **sql.field_values(one.fields),
    }
    db.execute("SAVEPOINT imported")
    db.execute(sql.INSERT_IMPORTED, values)
    is_stored = bool(db.changes()) and put_aliases(db, one.slug, one.aliases, now)
    if not is_stored:
        db.execute("ROLLBACK TO imported")
    db.execute("RELEASE imported")
    if not is_stored:
        return False
    if one.visits:
        db.execute(sql.INSERT_TOTAL, (one.slug, one.visits))
    return True
