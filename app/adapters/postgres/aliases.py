"""Further, other and taken-over slugs of links, in the PostgreSQL store (docs/adr/0025)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg import Rollback, errors

from app.adapters.postgres import history, sql
from app.adapters.postgres.pool import Connection, rows_of
from app.concurrency.actors import owner_of
from app.domain.errors import Contended, Unavailable
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

# Always in the same order: two calls wait for each other instead of deadlocking.
_LOCK = f"""
    SELECT {sql.LINK}, was_of FROM links WHERE slug = ANY(%(slugs)s)
    ORDER BY slug COLLATE "C" FOR UPDATE
"""
# What an earlier release takes for a removed link: its fields are those of the link, and mean nothing.
_PUT = f"""
    INSERT INTO links (
        slug, {", ".join(sql.FIELDS)}, version, created_at, updated_at, removed_at, alias_of, was_of, owner
    )
    SELECT put.slug, {", ".join("NULL" if name == "external_id" else name for name in sql.FIELDS)},
        version, %(now)s, %(now)s, %(now)s, %(alias_of)s::text, %(was_of)s::text, coalesce({sql.OWNER}, '')
    FROM links CROSS JOIN unnest(%(slugs)s::text[]) AS put(slug) WHERE links.slug = %(link)s ORDER BY put.slug
    ON CONFLICT (slug) DO UPDATE SET version = excluded.version, updated_at = excluded.updated_at,
        removed_at = excluded.removed_at, alias_of = excluded.alias_of, was_of = excluded.was_of,
        owner = excluded.owner
    WHERE links.alias_of = %(link)s OR links.was_of = %(link)s
"""
_READDRESS = sql.changing(f"""
    UPDATE links SET slug = %(to)s, aliases = %(aliases)s, version = version + 1, updated_at = %(now)s,
        {sql.CHANGED_BY}
    WHERE slug = %(slug)s
""")
_NOTE = f"""
    INSERT INTO outbox (slug, version, next_attempt_at, origin)
    SELECT slug, %(version)s, {sql.FIRST_ATTEMPT_AT}, %(origin)s::text
    FROM unnest(%(slugs)s::text[]) AS ended(slug)
"""
# A slug that another link got meanwhile stays its own: the change of the link meets it, and is refused.
_FREE = b"DELETE FROM links WHERE slug = %(to)s AND (alias_of = %(slug)s OR was_of = %(slug)s)"
# The counts of a link follow its slug, and so do its events to come. What its visits looked like is read by
# all of its slugs.
_MOVE = (
    b"""
        INSERT INTO click_totals (slug, clicks) SELECT %(to)s, clicks FROM click_totals WHERE slug = %(slug)s
        ON CONFLICT (slug) DO UPDATE SET clicks = click_totals.clicks + excluded.clicks
    """,
    b"UPDATE click_totals SET clicks = 0 WHERE slug = %(slug)s",
    b"""
        INSERT INTO click_hours (slug, hour, clicks)
        SELECT %(to)s, hour, clicks FROM click_hours WHERE slug = %(slug)s
        ON CONFLICT (slug, hour) DO UPDATE SET clicks = click_hours.clicks + excluded.clicks
    """,
    b"DELETE FROM click_hours WHERE slug = %(slug)s",
    b"DELETE FROM link_expiries WHERE slug = %(to)s",
    b"UPDATE link_expiries SET slug = %(to)s WHERE slug = %(slug)s",
    b"UPDATE webhook_deliveries SET slug = %(to)s WHERE slug = %(slug)s AND state = 'pending'",
    b"UPDATE links SET alias_of = %(to)s WHERE alias_of = %(slug)s",
    b"UPDATE links SET was_of = %(to)s WHERE was_of = %(slug)s",
)
_TAKE_OVER = """
    DELETE FROM links WHERE slug = %(slug)s AND removed_at < %(before)s AND alias_of IS NULL RETURNING version
"""
# Slugs of the link that was removed belong to none from now on, and neither do its events.
_FORGET = (
    b"""
        UPDATE links SET alias_of = NULL, was_of = NULL, first_version = version + 1
        WHERE alias_of = %(slug)s OR was_of = %(slug)s
    """,
    b"DELETE FROM click_totals WHERE slug = %(slug)s",
    b"DELETE FROM click_hours WHERE slug = %(slug)s",
)
_BEGIN_AT = b"UPDATE links SET first_version = version WHERE slug = %(slug)s"
_SET_ALIASES = b"UPDATE links SET aliases = %(aliases)s WHERE slug = %(slug)s"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The slug `to` and `aliases` that the link `slug` shall have, if it is at `version`."""

    slug: Slug
    to: Slug
    aliases: tuple[Slug, ...]
    version: int


async def readdress(
    connection: Connection,
    wanted: Addresses,
    *,
    now: datetime,
    request: IdempotentRequest | None,
    is_undo: bool,
    origin: str | None,
    actor: str | None,
) -> Changed | Replayed | RequestMismatch | VersionMismatch | AddressTaken | None:
    """As `LinkStore.readdress`."""
    outcome: Changed | Replayed | RequestMismatch | VersionMismatch | AddressTaken | None
    async with connection.transaction() as transaction:
        if request is not None and (known := await _recorded(connection, request, wanted.to, now)):
            return known
        whose = {"now": now, "origin": origin, "actor": actor}
        try:
            outcome = await _readdress(connection, wanted, whose)
        except errors.UniqueViolation:
            outcome = AddressTaken(wanted.to)
        if not isinstance(outcome, Changed):
            raise Rollback(transaction)
        if is_undo:
            values = {"slug": outcome.link.slug, "version": outcome.link.version}
            await connection.execute(history.MARK_UNDO.encode(), values)
    return outcome


async def _readdress(
    connection: Connection, wanted: Addresses, whose: sql.Parameters
) -> Changed | VersionMismatch | AddressTaken | None:
    slug, to = wanted.slug, wanted.to
    await connection.execute(sql.KEEP_SLUGS)
    asked = [slug, to, *wanted.aliases]
    rows = {row[0]: row for row in await rows_of(connection, _LOCK, {"slugs": asked})}
    current = sql.link(rows[slug]) if slug in rows else None
    if current is None or current.removed_at is not None:
        return None
    if current.version != wanted.version:
        return VersionMismatch(current)
    for one in (to, *wanted.aliases):
        if one != slug and one in rows and slug not in (sql.link(rows[one]).alias_of, rows[one][-1]):
            return AddressTaken(one)
    values = {**whose, "slug": slug, "to": to, "aliases": list(wanted.aliases)}
    if to != slug:
        await connection.execute(_FREE, values)
    # Before its counts: a create takes the slug of a link first, and what counts it then.
    [row] = await rows_of(connection, _READDRESS, values)
    if to != slug:
        for statement in _MOVE:
            await connection.execute(statement, values)
    link = sql.link(row)
    put = {"now": whose["now"], "link": to}
    if not await _put(connection, wanted.aliases, {**put, "alias_of": to, "was_of": None}):
        return AddressTaken(wanted.aliases[0])
    ended = sorted({slug, *current.aliases} - {to, *wanted.aliases})
    if ended:
        await _put(connection, ended, {**put, "alias_of": None, "was_of": to})
        noted = {"slugs": ended, "version": link.version, "origin": whose["origin"]}
        await connection.execute(_NOTE.encode(), noted)
    return Changed(link, sql.event(row[-2], link.slug, link.version, row[-1]), tuple(map(Slug, ended)))


async def _put(connection: Connection, slugs: Iterable[Slug], values: sql.Parameters) -> bool:
    """Make *slugs* those of a link; False if one of them is that of another."""
    put = sorted(slugs)
    if not put:
        return True
    cursor = await connection.execute(_PUT.encode(), {**values, "slugs": put})
    return cursor.rowcount == len(put)


async def put_aliases(connection: Connection, slug: Slug, aliases: Sequence[Slug], now: datetime) -> bool:
    """Give a link that is new these *aliases*; False if one of them is taken."""
    if not aliases:
        return True
    put = {"now": now, "link": slug, "alias_of": slug, "was_of": None}
    if not await _put(connection, aliases, put):
        return False
    await connection.execute(_SET_ALIASES, {"slug": slug, "aliases": list(aliases)})
    return True


async def _recorded(
    connection: Connection, request: IdempotentRequest, slug: Slug, now: datetime
) -> Replayed | RequestMismatch | None:
    """Record *request*, which the link *slug* serves; return what is known of it if it is there already."""
    memory = {"scope": request.scope, "key": request.key, "fingerprint": request.fingerprint}
    values = {**memory, "slugs": [slug], "now": now}
    if (await connection.execute(sql.INSERT_REQUEST.encode(), values)).rowcount:
        return None
    rows = await rows_of(connection, sql.SELECT_REQUEST, {"scope": request.scope, "key": request.key})
    if not rows:  # `forget_requests` deleted it since the previous statement
        raise Unavailable("postgresql", "the same request was deleted concurrently")
    fingerprint, slugs = rows[0]
    if fingerprint != request.fingerprint:
        return RequestMismatch()
    found = {row[-1]: sql.link(row) for row in await rows_of(connection, sql.SELECT_SERVED, {"slugs": slugs})}
    return Replayed(tuple(found[slug] for slug in slugs))


async def add_addressed(
    connection: Connection,
    new: NewLink,
    *,
    now: datetime,
    request: IdempotentRequest | None,
    removed_before: datetime | None,
    origin: str | None,
    actor: str | None,
) -> Added | Replayed | RequestMismatch:
    """Store *new*, as `LinkStore.add` does, with its aliases and under a slug that it takes over."""
    changed: Changed | None = None
    async with connection.transaction() as transaction:
        if request is not None and (known := await _recorded(connection, request, new.slug, now)):
            return known
        try:
            changed = await _add(connection, new, removed_before, now, {"origin": origin, "actor": actor})
        except errors.DeadlockDetected as error:
            raise Contended("postgresql", "another link with the same slugs was stored") from error
        if changed is None:
            raise Rollback(transaction)
    return Added((None,), ()) if changed is None else Added((changed.link,), (changed.event,))


async def _add(
    connection: Connection,
    new: NewLink,
    removed_before: datetime | None,
    now: datetime,
    whose: sql.Parameters,
) -> Changed | None:
    version = 1
    if removed_before is not None:
        await connection.execute(sql.KEEP_SLUGS)
        taken = {"slug": new.slug, "before": removed_before}
        for (last,) in await rows_of(connection, _TAKE_OVER, taken):
            version = last + 1
            for statement in _FORGET:
                await connection.execute(statement, {"slug": new.slug})
    link = Link(
        slug=new.slug,
        fields=new.fields,
        version=version,
        created_at=now,
        updated_at=now,
        owner=owner_of(whose["actor"]),
    )
    rows: Sequence[sql.Row] = await rows_of(
        connection, sql.WRITE_ADDRESSED, {**sql.added_values([link]), **whose}
    )
    if not rows:
        return None
    if version > 1:
        await connection.execute(_BEGIN_AT, {"slug": new.slug})
    if not await put_aliases(connection, new.slug, new.aliases, now):
        return None
    [row] = rows
    link = replace(link, epoch=row[4], aliases=new.aliases)
    return Changed(link, sql.event(*row[:4]))
