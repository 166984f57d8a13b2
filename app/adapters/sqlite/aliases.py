"""Further slugs of links, other slugs, and slugs that are taken over, in the SQLite store (docs/adr/0025)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import apsw
import msgspec

from app.adapters.sqlite import history, sql
from app.concurrency.actors import owner_of
from app.domain.link import Link, NewLink, Slug
from app.ports import (
    Added,
    AddressTaken,
    Changed,
    IdempotentRequest,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)

_SELECT_OWN = f"SELECT {sql.SELECTED} FROM links WHERE slug = ?"
_SELECT_TAKEN = """
    SELECT value FROM json_each(:slugs) JOIN links ON links.slug = value
    WHERE value <> :slug AND alias_of IS NOT :slug AND was_of IS NOT :slug ORDER BY json_each.key LIMIT 1
"""
# What an earlier release takes for a removed link: its fields are those of the link, and mean nothing.
_PUT = f"""
    INSERT INTO links (
        slug, {", ".join(sql.FIELDS)}, version, created_at, updated_at, removed_at, alias_of, was_of, owner
    )
    SELECT put.value, {", ".join("NULL" if name == "external_id" else name for name in sql.FIELDS)},
        version, :now, :now, :now, :alias_of, :was_of, coalesce({sql.OWNER}, '')
    FROM links CROSS JOIN json_each(:slugs) AS put WHERE links.slug = :link
    ON CONFLICT (slug) DO UPDATE SET version = excluded.version, updated_at = excluded.updated_at,
        removed_at = excluded.removed_at, alias_of = excluded.alias_of, was_of = excluded.was_of,
        owner = excluded.owner
    WHERE links.alias_of = :link OR links.was_of = :link
"""
_READDRESS = f"""
    UPDATE links SET slug = :to, aliases = :aliases, version = version + 1, updated_at = :now,
        {sql.CHANGED_BY}
    WHERE slug = :slug
"""
# The counts of a link follow its slug, and so do its events to come. What its visits looked like is read by
# all of its slugs.
_MOVE = (
    "DELETE FROM links WHERE slug = :to",
    """
        INSERT INTO click_totals (slug, clicks) SELECT :to, clicks FROM click_totals WHERE slug = :slug
        ON CONFLICT (slug) DO UPDATE SET clicks = click_totals.clicks + excluded.clicks
    """,
    "UPDATE click_totals SET clicks = 0 WHERE slug = :slug",
    """
        INSERT INTO click_hours (slug, hour, clicks)
        SELECT :to, hour, clicks FROM click_hours WHERE slug = :slug
        ON CONFLICT (slug, hour) DO UPDATE SET clicks = click_hours.clicks + excluded.clicks
    """,
    "DELETE FROM click_hours WHERE slug = :slug",
    "DELETE FROM link_expiries WHERE slug = :to",
    "UPDATE link_expiries SET slug = :to WHERE slug = :slug",
    "UPDATE webhook_deliveries SET slug = :to WHERE slug = :slug AND state = 'pending'",
    "UPDATE links SET alias_of = :to WHERE alias_of = :slug",
    "UPDATE links SET was_of = :to WHERE was_of = :slug",
)
_SELECT_REMOVED = "SELECT version FROM links WHERE slug = ? AND removed_at < ? AND alias_of IS NULL"
# Slugs of the link that was removed belong to none from now on, and neither do its events.
_TAKE_OVER = (
    "DELETE FROM links WHERE slug = :slug",
    """
        UPDATE links SET alias_of = NULL, was_of = NULL, first_version = version + 1
        WHERE alias_of = :slug OR was_of = :slug
    """,
    "DELETE FROM click_totals WHERE slug = :slug",
    "DELETE FROM click_hours WHERE slug = :slug",
)
_INSERT = f"""
    INSERT INTO links (
        slug, {", ".join(sql.FIELDS)}, version, first_version, created_at, updated_at, created_by
    )
    VALUES (:slug, {", ".join(f":{name}" for name in sql.FIELDS)}, :version, :version, :now, :now, :actor)
    ON CONFLICT DO NOTHING
"""


def readdress(
    db: apsw.Connection,
    slug: Slug,
    *,
    to: Slug,
    aliases: Sequence[Slug],
    expected_version: int,
    now: datetime,
    request: IdempotentRequest | None,
    is_undo: bool,
    origin: str | None,
    actor: str | None,
) -> Changed | Replayed | RequestMismatch | VersionMismatch | AddressTaken | None:
    """As `LinkStore.readdress`."""
    if request is not None and (known := replay(db, request)) is not None:
        return known
    rows = sql.rows(db, _SELECT_OWN, (slug,))
    current = sql.link(rows[0]) if rows else None
    if current is None or current.removed_at is not None:
        return None
    if current.version != expected_version:
        return VersionMismatch(current)
    taken = sql.rows(db, _SELECT_TAKEN, {"slugs": sql.json([to, *aliases]), "slug": slug})
    if taken:
        return AddressTaken(Slug(taken[0][0]))
    values = {"slug": slug, "to": to, "aliases": sql.json(aliases), "now": sql.micros(now), "actor": actor}
    if to != slug:
        for statement in _MOVE:
            db.execute(statement, values)
    db.execute(_READDRESS, values)
    put = {"now": values["now"], "link": to}
    _put(db, aliases, {**put, "alias_of": to, "was_of": None})
    ended = sorted({slug, *current.aliases} - {to, *aliases})
    _put(db, ended, {**put, "alias_of": None, "was_of": to})
    link = sql.link(sql.rows(db, _SELECT_OWN, (to,))[0])
    [event, *_] = [
        sql.event(
            sql.rows(db, sql.INSERT_EVENT, (one, link.version, origin))[0][0], one, link.version, origin
        )
        for one in (to, *ended)
    ]
    if is_undo:
        history.mark_undo(db, link)
    if request is not None:
        remember(db, request, [to], now)
    return Changed(link, event, tuple(ended))


def _put(db: apsw.Connection, slugs: Iterable[Slug], values: Mapping[str, Any]) -> bool:
    """Make *slugs* those of a link; False if one of them is that of another."""
    put = sorted(slugs)
    if not put:
        return True
    db.execute(_PUT, {**values, "slugs": sql.json(put)})
    return db.changes() == len(put)


def put_aliases(db: apsw.Connection, slug: Slug, aliases: Sequence[Slug], now: datetime) -> bool:
    """Give a link that is new these *aliases*; False if one of them is taken."""
    if not aliases:
        return True
    if not _put(db, aliases, {"now": sql.micros(now), "link": slug, "alias_of": slug, "was_of": None}):
        return False
    db.execute("UPDATE links SET aliases = ? WHERE slug = ?", (sql.json(aliases), slug))
    return True


def add(
    db: apsw.Connection,
    new: NewLink,
    *,
    now: datetime,
    request: IdempotentRequest | None,
    removed_before: datetime | None,
    origin: str | None,
    actor: str | None,
) -> Added | Replayed | RequestMismatch:
    """Store *new*, as `LinkStore.add` does, with its aliases and under a slug that it takes over."""
    if request is not None and (known := replay(db, request)) is not None:
        return known
    db.execute("SAVEPOINT addressed")
    link = _add(db, new, removed_before, now, actor)
    added = Added((None,), ())
    if link is None:
        db.execute("ROLLBACK TO addressed")
    else:
        [(event_id,)] = sql.rows(db, sql.INSERT_EVENT, (link.slug, link.version, origin))
        added = Added((link,), (sql.event(event_id, link.slug, link.version, origin),))
        if request is not None:
            remember(db, request, [link.slug], now)
    db.execute("RELEASE addressed")
    return added


def _add(
    db: apsw.Connection, new: NewLink, removed_before: datetime | None, now: datetime, actor: str | None
) -> Link | None:
    version = 1
    if removed_before is not None:
        for (last,) in sql.rows(db, _SELECT_REMOVED, (new.slug, sql.micros(removed_before))):
            version = last + 1
            for statement in _TAKE_OVER:
                db.execute(statement, {"slug": new.slug})
    common = {"slug": new.slug, "now": sql.micros(now)}
    db.execute(_INSERT, {**common, "version": version, "actor": actor, **sql.field_values(new.fields)})
    if not db.changes():
        return None
    if not put_aliases(db, new.slug, new.aliases, now):
        return None
    return Link(
        slug=new.slug,
        fields=new.fields,
        version=version,
        created_at=now,
        updated_at=now,
        owner=owner_of(actor),
        aliases=new.aliases,
    )


def replay(db: apsw.Connection, request: IdempotentRequest) -> Replayed | RequestMismatch | None:
    """Return what is known of *request*, if it was served before."""
    rows = sql.rows(db, sql.SELECT_REQUEST, (request.scope, request.key))
    if not rows:
        return None
    fingerprint, slugs = rows[0]
    if fingerprint != request.fingerprint:
        return RequestMismatch()
    served = msgspec.json.decode(slugs, type=list[Slug])
    found = {row[-1]: sql.link(row) for row in sql.rows(db, sql.SELECT_SERVED, (sql.json(served),))}
    return Replayed(tuple(found[slug] for slug in served))


def remember(db: apsw.Connection, request: IdempotentRequest, slugs: Sequence[Slug], now: datetime) -> None:
    """Note that *request* was served by the links *slugs*."""
    memory = (request.scope, request.key, request.fingerprint, sql.json(slugs), sql.micros(now))
    db.execute(sql.INSERT_REQUEST, memory)
