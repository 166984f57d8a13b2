"""The event log, webhooks and their deliveries in the SQLite store; triggers write the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import apsw

from app.adapters.event_rows import EventRow, disabled_reason, event_of, events_of
from app.adapters.sqlite import sql
from app.adapters.sqlite.writer import Writer, translated
from app.domain.webhooks import DeliveryState, EventFilter, LinkEvent, Webhook, kind_of
from app.ports import Attempted, Delivery, DueDelivery, EventPage, WebhookWork

_NEWEST = 2**63 - 1
_STATES = ", ".join(f"h.{name}" for name in sql.FIELDS)
_WEBHOOK = (
    "id", "url", "name", "kinds", "domain", "tag", "enabled", "disabled_reason", "secret", "old_secret",
    "old_until", "position", "version", "created_at", "updated_at",
)  # fmt: skip
# The log's columns have names of their own: those of links stand beside them. A link may have another slug by
# now, and a slug may be that of another link.
_EVENTS = f"""
    WITH e AS MATERIALIZED (
        SELECT position, uid, kind, slug AS e_slug, version AS e_version, past, at FROM link_events
        WHERE %s ORDER BY position LIMIT :limit
    ), o AS MATERIALIZED (
        SELECT *, coalesce((SELECT coalesce(alias_of, was_of) FROM links WHERE slug = e_slug), e_slug) AS own
        FROM e
    ), l AS MATERIALIZED (
        SELECT {sql.SELECTED}, id AS link_id, first_version FROM links WHERE slug IN (SELECT own FROM o)
    )
    SELECT l.*, e.position, e.uid, e.kind, e.e_version, e.at, h.id,
        (SELECT changed_at FROM link_history WHERE id = e.past AND link = l.link_id),
        h.former_slug, h.aliases, {_STATES}
    FROM o AS e LEFT JOIN l ON l.slug = e.own AND l.first_version <= e.e_version
    LEFT JOIN link_history AS h ON h.id = (
        SELECT id FROM link_history
        WHERE link = l.link_id AND id > e.past AND replaced >= e.e_version ORDER BY id LIMIT 1
    )
    ORDER BY e.position
"""
_AFTER = _EVENTS % "position > :position"
_AT = _EVENTS % "position IN (SELECT value FROM json_each(:positions))"
_LAST = "SELECT coalesce(max(position), 0) FROM link_events"
_FORGET = """
    DELETE FROM link_events WHERE at < :before AND position < (SELECT max(position) FROM link_events)
        AND position IN (SELECT position FROM link_events ORDER BY position LIMIT :limit)
"""
_FORGET_DELIVERIES = """
    DELETE FROM webhook_deliveries WHERE position < (SELECT min(position) FROM link_events)
"""
_DUE_EXPIRIES = "SELECT slug FROM link_expiries WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
_EXPIRE = """
    INSERT INTO link_events (kind, slug, version, past, at)
    SELECT 'link.expired', slug, version,
        coalesce((SELECT max(id) FROM link_history WHERE link = links.id), 0), expires_at
    FROM links WHERE slug IN (SELECT value FROM json_each(?1)) AND removed_at IS NULL AND expires_at <= ?2
    ORDER BY expires_at
"""
_FORGET_EXPIRIES = "DELETE FROM link_expiries WHERE slug IN (SELECT value FROM json_each(?))"

_INSERT = f"""
    INSERT INTO webhooks ({", ".join(_WEBHOOK)}) SELECT {", ".join(f":{name}" for name in _WEBHOOK)}
    WHERE (SELECT count(*) FROM webhooks) < :most
"""
_SELECT = f"SELECT {', '.join(_WEBHOOK)} FROM webhooks ORDER BY created_at, id"
_UPDATE = f"""
    UPDATE webhooks SET {", ".join(f"{name} = :{name}" for name in _WEBHOOK[1:11])}, version = version + 1,
        updated_at = :updated_at
    WHERE id = :id AND version = :version
"""
_WORK = f"""
    SELECT {", ".join(_WEBHOOK)},
        (SELECT count(*) FROM webhook_deliveries WHERE webhook = id AND state = 'pending'),
        (SELECT min(created_at) FROM webhook_deliveries WHERE webhook = id AND state = 'pending'),
        EXISTS (
            SELECT 1 FROM webhook_deliveries WHERE webhook = id AND state = 'pending' AND next_attempt_at <= ?
        )
    FROM webhooks ORDER BY created_at, id
"""
_ADVANCE = "UPDATE webhooks SET position = ?3 WHERE id = ?1 AND position = ?2"
# The order of a link's deliveries is kept under the slug that it has by now.
_PLAN = """
    INSERT INTO webhook_deliveries (webhook, position, slug, state, next_attempt_at, created_at)
    VALUES (
        ?1, ?2, coalesce((SELECT coalesce(alias_of, was_of) FROM links WHERE slug = ?3), ?3),
        'pending', ?4, ?4
    )
    ON CONFLICT (webhook, position) DO UPDATE SET slug = excluded.slug, state = 'pending', attempts = 0,
        next_attempt_at = excluded.next_attempt_at, created_at = excluded.created_at
        WHERE state <> 'pending'
"""
_TAKE = """
    UPDATE webhook_deliveries SET attempts = attempts + 1, next_attempt_at = :until
    WHERE webhook = :webhook AND position IN (
        SELECT position FROM webhook_deliveries AS due
        WHERE webhook = :webhook AND state = 'pending' AND next_attempt_at <= :now AND NOT EXISTS (
            SELECT 1 FROM webhook_deliveries AS earlier WHERE earlier.webhook = due.webhook
                AND earlier.slug = due.slug AND earlier.state = 'pending' AND earlier.position < due.position
        )
        ORDER BY next_attempt_at, position LIMIT :limit
    )
    RETURNING position, attempts
"""
_NOTE = """
    UPDATE webhook_deliveries SET state = :state, attempted_at = :at, next_attempt_at = :next_attempt_at,
        status = :status, problem = :problem
    WHERE webhook = :webhook AND position = :position AND state = 'pending'
"""
_LISTED = """
    SELECT d.position, d.slug, d.state, d.attempts, d.next_attempt_at, d.created_at, d.attempted_at, d.status,
        d.problem, e.kind, e.uid
    FROM webhook_deliveries AS d LEFT JOIN link_events AS e USING (position)
    WHERE d.webhook = ? AND d.position < ? ORDER BY d.position DESC LIMIT ?
"""
_REPLAY_DEAD = """
    UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = ?2
    WHERE webhook = ?1 AND state = 'dead'
"""
_REPLAY_AFTER = "UPDATE webhooks SET position = ?2 WHERE id = ?1 AND position > ?2"


class SqliteEvents:
    """The part of the SQLite store that has the event log and webhooks."""

    _reader: apsw.Connection
    _writer: Writer

    async def number_events(self, *, limit: int) -> int:
        """Return 0: the trigger gives positions, as only one connection writes at a time."""
        return 0

    async def expire_links(self, *, now: datetime, limit: int) -> int:
        at = sql.micros(now)
        with translated():
            if not sql.rows(self._reader, _DUE_EXPIRIES, (at, 1)):
                return 0

        def work(db: apsw.Connection) -> int:
            slugs = sql.json([row[0] for row in sql.rows(db, _DUE_EXPIRIES, (at, limit))])
            db.execute(_EXPIRE, (slugs, at))
            db.execute(_FORGET_EXPIRIES, (slugs,))
            return db.changes()

        return await self._writer.run(work)

    async def events_after(self, position: int, *, limit: int) -> EventPage:
        with translated():
            rows = sql.rows(self._reader, _AFTER, {"position": position, "limit": limit})
        found = [_event_row(row) for row in rows]
        return EventPage(events_of(found), found[-1].position if found else position)

    async def last_event(self) -> int:
        with translated():
            [(last,)] = sql.rows(self._reader, _LAST)
        return cast("int", last)

    async def forget_events(self, *, before: datetime, limit: int) -> int:
        def work(db: apsw.Connection) -> int:
            db.execute(_FORGET, {"before": sql.micros(before), "limit": limit})
            forgotten = db.changes()
            if forgotten:
                db.execute(_FORGET_DELIVERIES)
            return forgotten

        return await self._writer.run(work)

    async def add_webhook(self, webhook: Webhook, *, most: int) -> bool:
        def work(db: apsw.Connection) -> bool:
            [(last,)] = sql.rows(db, _LAST)
            db.execute(_INSERT, {**_values(webhook), "position": last, "most": most})
            return bool(db.changes())

        return await self._writer.run(work)

    async def webhooks(self) -> Sequence[Webhook]:
        with translated():
            return [_webhook(row) for row in sql.rows(self._reader, _SELECT)]

    async def change_webhook(self, webhook: Webhook) -> bool:
        return await self._writer.run(lambda db: _changed(db, _UPDATE, _values(webhook)))

    async def remove_webhook(self, webhook_id: str) -> bool:
        def work(db: apsw.Connection) -> bool:
            db.execute("DELETE FROM webhook_deliveries WHERE webhook = ?", (webhook_id,))
            return _changed(db, "DELETE FROM webhooks WHERE id = ?", (webhook_id,))

        return await self._writer.run(work)

    async def webhook_work(self, *, now: datetime) -> Sequence[WebhookWork]:
        with translated():
            rows = sql.rows(self._reader, _WORK, (sql.micros(now),))
        return [
            WebhookWork(
                webhook=_webhook(tuple(columns)), pending=pending, oldest=sql.time(oldest), is_due=bool(due)
            )
            for *columns, pending, oldest, due in rows
        ]

    async def plan_deliveries(
        self, webhook_id: str, events: Sequence[LinkEvent], *, after: int, until: int, now: datetime
    ) -> bool:
        def work(db: apsw.Connection) -> bool:
            if not _changed(db, _ADVANCE, (webhook_id, after, until)):
                return False
            at = sql.micros(now)
            planned = [(webhook_id, event.position, event.link.slug, at) for event in events]
            db.executemany(_PLAN, planned)
            return True

        return await self._writer.run(work)

    async def take_deliveries(
        self, webhook_id: str, *, limit: int, lease: timedelta, now: datetime
    ) -> Sequence[DueDelivery]:
        values = {"webhook": webhook_id, "limit": limit, "now": sql.micros(now)}
        values["until"] = sql.micros(now + lease)

        def work(db: apsw.Connection) -> list[DueDelivery]:
            taken = sorted(sql.rows(db, _TAKE, values))
            positions = sql.json([position for position, _ in taken])
            rows = sql.rows(db, _AT, {"positions": positions, "limit": len(taken)})
            events = {row.position: event_of(row) for row in map(_event_row, rows)}
            return [
                DueDelivery(position=position, attempts=attempts, event=events.get(position))
                for position, attempts in taken
            ]

        return await self._writer.run(work)

    async def note_attempts(self, webhook_id: str, attempted: Mapping[int, Attempted]) -> None:
        values = [
            {
                "webhook": webhook_id,
                "position": position,
                "state": str(one.state),
                "at": sql.micros(one.at),
                "next_attempt_at": sql.micros(one.next_attempt_at),
                "status": one.status,
                "problem": one.problem,
            }
            for position, one in attempted.items()
        ]
        await self._writer.run(lambda db: db.executemany(_NOTE, values).fetchall())

    async def deliveries(self, webhook_id: str, *, before: int | None, limit: int) -> Sequence[Delivery]:
        bindings = (webhook_id, _NEWEST if before is None else before, limit)
        with translated():
            rows = sql.rows(self._reader, _LISTED, bindings)
        return [_delivery(row) for row in rows]

    async def replay_dead(self, webhook_id: str, *, now: datetime) -> int:
        def work(db: apsw.Connection) -> int:
            db.execute(_REPLAY_DEAD, (webhook_id, sql.micros(now)))
            return db.changes()

        return await self._writer.run(work)

    async def replay_after(self, webhook_id: str, position: int) -> bool:
        return await self._writer.run(lambda db: _changed(db, _REPLAY_AFTER, (webhook_id, position)))


def _changed(db: apsw.Connection, statement: str, bindings: sql.Bindings) -> bool:
    db.execute(statement, bindings)
    return bool(db.changes())


def _event_row(row: sql.Row) -> EventRow:
    link, event = row[: sql.LINK_COLUMNS], row[sql.LINK_COLUMNS + 2 :]
    position, uid, kind, version, at, state, changed_at, slug, aliases = event[:9]
    return EventRow(
        position=position,
        uid=uid,
        kind=kind,
        version=version,
        at=cast("datetime", sql.time(at)),
        link=None if link[0] is None else sql.link(link),
        fields=None if state is None else sql.fields_in(event[9:]),
        changed_at=sql.time(changed_at),
        slug=slug,
        aliases=None if aliases is None else sql.slugs(aliases),
    )


def _values(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.webhook_id,
        "url": webhook.url,
        "name": webhook.name,
        "kinds": sql.json(sorted(webhook.filter.kinds)),
        "domain": webhook.filter.domain,
        "tag": webhook.filter.tag,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "secret": webhook.secret,
        "old_secret": webhook.old_secret,
        "old_until": sql.micros(webhook.old_until),
        "position": webhook.position,
        "version": webhook.version,
        "created_at": sql.micros(webhook.created_at),
        "updated_at": sql.micros(webhook.updated_at),
    }


def _webhook(row: sql.Row) -> Webhook:
    values = dict(zip(_WEBHOOK, row, strict=True))
    kinds = frozenset(filter(None, map(kind_of, sql.listed(values["kinds"]))))
    return Webhook(
        webhook_id=values["id"],
        url=values["url"],
        name=values["name"],
        filter=EventFilter(kinds=kinds, domain=values["domain"], tag=values["tag"]),
        enabled=bool(values["enabled"]),
        disabled_reason=disabled_reason(values["disabled_reason"], is_enabled=bool(values["enabled"])),
        secret=values["secret"],
        old_secret=values["old_secret"],
        old_until=sql.time(values["old_until"]),
        position=values["position"],
        version=values["version"],
        created_at=cast("datetime", sql.time(values["created_at"])),
        updated_at=cast("datetime", sql.time(values["updated_at"])),
    )


def _delivery(row: sql.Row) -> Delivery:
    position, slug, state, attempts, next_at, created_at, attempted_at, status, problem, kind, uid = row
    return Delivery(
        position=position,
        slug=slug,
        state=DeliveryState(state),
        attempts=attempts,
        next_attempt_at=cast("datetime", sql.time(next_at)),
        created_at=cast("datetime", sql.time(created_at)),
        attempted_at=sql.time(attempted_at),
        status=status,
        problem=problem,
        kind=kind_of(kind),
        uid=uid,
    )
