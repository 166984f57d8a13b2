"""The event log, webhooks and their deliveries in the PostgreSQL store; triggers write the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from app.adapters.event_rows import EventRow, disabled_reason, event_of, events_of
from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, Connections, rows_of
from app.domain.webhooks import DeliveryState, EventFilter, LinkEvent, Webhook, kind_of
from app.ports import Attempted, Delivery, DueDelivery, EventPage, WebhookWork

_NEWEST = 2**63 - 1
# Any number that no other program uses as an advisory lock of this database.
_LOCK = "SELECT pg_try_advisory_xact_lock(4676716484)"
_STATES = ", ".join(f"h.{name}" for name in sql.FIELDS)
_WEBHOOK = {
    "id": "text",
    "url": "text",
    "name": "text",
    "kinds": "text[]",
    "domain": "text",
    "tag": "text",
    "enabled": "boolean",
    "disabled_reason": "text",
    "secret": "bytea",
    "old_secret": "bytea",
    "old_until": "timestamptz",
    "position": "bigint",
    "version": "bigint",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
_COLUMNS = ", ".join(_WEBHOOK)
# Not at the same time as another call: so positions have the order of commits. What this call does not see
# commits later, and is numbered later. Of one link, later events have higher ids and are written after the
# earlier ones have committed, so they never overtake them.
_NUMBER = """
    WITH taken AS (
        DELETE FROM link_events_new
        WHERE id = ANY(ARRAY(SELECT id FROM link_events_new ORDER BY id LIMIT %(limit)s)) RETURNING *
    )
    INSERT INTO link_events (kind, slug, version, past, at)
    SELECT kind, slug, version, past, at FROM taken ORDER BY id
"""
_ANY_NEW = "SELECT EXISTS (SELECT 1 FROM link_events_new)"
# The log's columns have names of their own: those of links stand beside them. A link may have another slug by
# now, and a slug may be that of another link.
_EVENTS = f"""
    WITH e AS MATERIALIZED (
        SELECT position, uid, kind, slug AS e_slug, version AS e_version, past, at FROM link_events
        WHERE %s ORDER BY position LIMIT %%(limit)s
    ), o AS MATERIALIZED (
        SELECT *, coalesce((SELECT coalesce(alias_of, was_of) FROM links WHERE slug = e_slug), e_slug) AS own
        FROM e
    ), l AS MATERIALIZED (
        SELECT {sql.LINK}, id AS link_id, first_version FROM links WHERE slug = ANY(ARRAY(SELECT own FROM o))
    )
    SELECT l.*, e.position, e.uid::text, e.kind, e.e_version, e.at, h.id IS NOT NULL,
        (SELECT changed_at FROM link_history WHERE id = e.past AND link = l.link_id),
        h.former_slug, h.aliases, {_STATES}
    FROM o AS e LEFT JOIN l ON l.slug = e.own AND l.first_version <= e.e_version
    LEFT JOIN LATERAL (
        SELECT * FROM link_history
        WHERE link = l.link_id AND id > e.past AND replaced >= e.e_version ORDER BY id LIMIT 1
    ) AS h ON true
    ORDER BY e.position
"""
_AFTER = _EVENTS % "position > %(position)s"
_AT = _EVENTS % "position = ANY(%(positions)s::bigint[])"
_LAST = "SELECT coalesce(max(position), 0) FROM link_events"
_FORGET = """
    DELETE FROM link_events WHERE at < %(before)s AND position < (SELECT max(position) FROM link_events)
        AND position = ANY(ARRAY(SELECT position FROM link_events ORDER BY position LIMIT %(limit)s))
"""
_FORGET_DELIVERIES = """
    DELETE FROM webhook_deliveries WHERE position < (SELECT min(position) FROM link_events)
"""
_EXPIRE = """
    WITH due AS (
        DELETE FROM link_expiries WHERE slug = ANY(ARRAY(
            SELECT slug FROM link_expiries WHERE expires_at <= %(now)s ORDER BY expires_at LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )) RETURNING slug
    ), written AS (
        INSERT INTO link_events_new (kind, slug, version, past, at)
        SELECT 'link.expired', slug, version,
            coalesce((SELECT max(id) FROM link_history WHERE link = links.id), 0), expires_at
        FROM links JOIN due USING (slug) WHERE removed_at IS NULL AND expires_at <= %(now)s
        ORDER BY expires_at
    )
    SELECT slug FROM due
"""
_ANY_DUE = "SELECT EXISTS (SELECT 1 FROM link_expiries WHERE expires_at <= %(now)s)"
# One after the other: a count does not see what others are about to add.
_LOCK_WEBHOOKS = b"LOCK TABLE webhooks IN SHARE ROW EXCLUSIVE MODE"
_INSERT = f"""
    INSERT INTO webhooks ({_COLUMNS})
    SELECT {", ".join(f"%({name})s::{type_}" for name, type_ in _WEBHOOK.items() if name != "position")}
    WHERE (SELECT count(*) FROM webhooks) < %(most)s RETURNING id
""".replace("%(version)s", f"({_LAST}), %(version)s")
_SELECT = f"SELECT {_COLUMNS} FROM webhooks ORDER BY created_at, id"
_SET = ", ".join(f"{name} = %({name})s::{type_}" for name, type_ in list(_WEBHOOK.items())[1:11])
_UPDATE = f"""
    UPDATE webhooks SET {_SET}, version = version + 1, updated_at = %(updated_at)s
    WHERE id = %(id)s AND version = %(version)s RETURNING id
"""
_REMOVE = "DELETE FROM webhooks WHERE id = %(id)s RETURNING id"
_WORK = f"""
    SELECT {_COLUMNS},
        (SELECT count(*) FROM webhook_deliveries WHERE webhook = webhooks.id AND state = 'pending'),
        (
            SELECT min(d.created_at) FROM webhook_deliveries AS d
            WHERE webhook = webhooks.id AND state = 'pending'
        ),
        EXISTS (
            SELECT 1 FROM webhook_deliveries
            WHERE webhook = webhooks.id AND state = 'pending' AND next_attempt_at <= %(now)s
        )
    FROM webhooks ORDER BY created_at, id
"""
# The order of a link's deliveries is kept under the slug that it has by now.
_PLAN = """
    WITH webhook AS (
        UPDATE webhooks SET position = %(until)s WHERE id = %(id)s AND position = %(after)s
        RETURNING id AS webhook
    ), planned AS (
        INSERT INTO webhook_deliveries AS d (webhook, position, slug, state, next_attempt_at, created_at)
        SELECT webhook, one.position, coalesce(alias_of, was_of, one.slug), 'pending', %(now)s, %(now)s
        FROM unnest(%(positions)s::bigint[], %(slugs)s::text[]) AS one (position, slug)
            CROSS JOIN webhook LEFT JOIN links ON links.slug = one.slug
        ON CONFLICT (webhook, position) DO UPDATE SET slug = excluded.slug, state = 'pending', attempts = 0,
            next_attempt_at = excluded.next_attempt_at, created_at = excluded.created_at
            WHERE d.state <> 'pending'
    )
    SELECT webhook FROM webhook
"""
_TAKE = """
    WITH due AS (
        SELECT webhook, position FROM webhook_deliveries AS due
        WHERE webhook = %(id)s AND state = 'pending' AND next_attempt_at <= %(now)s AND NOT EXISTS (
            SELECT 1 FROM webhook_deliveries AS earlier WHERE earlier.webhook = due.webhook
                AND earlier.slug = due.slug AND earlier.state = 'pending' AND earlier.position < due.position
        )
        ORDER BY next_attempt_at, position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE webhook_deliveries AS d SET attempts = attempts + 1, next_attempt_at = %(until)s
    FROM due WHERE d.webhook = due.webhook AND d.position = due.position
    RETURNING d.position, d.attempts
"""
_NOTE = """
    UPDATE webhook_deliveries AS d SET state = one.state, attempted_at = one.at, next_attempt_at = one.next,
        status = one.status, problem = one.problem
    FROM unnest(
        %(positions)s::bigint[], %(states)s::text[], %(times)s::timestamptz[], %(nexts)s::timestamptz[],
        %(statuses)s::integer[], %(problems)s::text[]
    ) AS one (position, state, at, next, status, problem)
    WHERE d.webhook = %(id)s AND d.position = one.position AND d.state = 'pending'
    RETURNING d.position
"""
_LISTED = """
    SELECT d.position, d.slug, d.state, d.attempts, d.next_attempt_at, d.created_at, d.attempted_at, d.status,
        d.problem, e.kind, e.uid::text
    FROM webhook_deliveries AS d LEFT JOIN link_events AS e USING (position)
    WHERE d.webhook = %(id)s AND d.position < %(before)s ORDER BY d.position DESC LIMIT %(limit)s
"""
_REPLAY_DEAD = """
    UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = %(now)s
    WHERE webhook = %(id)s AND state = 'dead' RETURNING position
"""
_REPLAY_AFTER = """
    UPDATE webhooks SET position = %(position)s WHERE id = %(id)s AND position > %(position)s RETURNING id
"""


class PostgresEvents:
    """The part of the PostgreSQL store that has the event log and webhooks."""

    _connections: Connections
    _writing: Connections

    async def number_events(self, *, limit: int) -> int:
        async def work(connection: Connection) -> int:
            [(is_any,)] = await rows_of(connection, _ANY_NEW, {})
            if not is_any:
                return 0
            async with connection.transaction():
                [(is_first,)] = await rows_of(connection, _LOCK, {})
                if not is_first:
                    return 0
                return (await connection.execute(_NUMBER.encode(), {"limit": limit})).rowcount

        return await self._writing.run(work)

    async def expire_links(self, *, now: datetime, limit: int) -> int:
        async def work(connection: Connection) -> int:
            [(is_any,)] = await rows_of(connection, _ANY_DUE, {"now": now})
            return len(await rows_of(connection, _EXPIRE, {"now": now, "limit": limit})) if is_any else 0

        return await self._writing.run(work)

    async def events_after(self, position: int, *, limit: int) -> EventPage:
        rows = [_event_row(row) for row in await self._rows(_AFTER, position=position, limit=limit)]
        return EventPage(events_of(rows), rows[-1].position if rows else position)

    async def last_event(self) -> int:
        [(last,)] = await self._rows(_LAST)
        return int(last)

    async def forget_events(self, *, before: datetime, limit: int) -> int:
        async def work(connection: Connection) -> int:
            values = {"before": before, "limit": limit}
            async with connection.transaction():
                forgotten = (await connection.execute(_FORGET.encode(), values)).rowcount
                if forgotten:
                    await connection.execute(_FORGET_DELIVERIES.encode())
            return forgotten

        return await self._writing.run(work)

    async def add_webhook(self, webhook: Webhook, *, most: int) -> bool:
        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                await connection.execute(_LOCK_WEBHOOKS)
                return bool(await rows_of(connection, _INSERT, {**_values(webhook), "most": most}))

        return await self._writing.run(work)

    async def webhooks(self) -> Sequence[Webhook]:
        return [_webhook(row) for row in await self._rows(_SELECT)]

    async def change_webhook(self, webhook: Webhook) -> bool:
        return bool(await self._written(_UPDATE, **_values(webhook)))

    async def remove_webhook(self, webhook_id: str) -> bool:
        return bool(await self._written(_REMOVE, id=webhook_id))

    async def webhook_work(self, *, now: datetime) -> Sequence[WebhookWork]:
        return [
            WebhookWork(webhook=_webhook(tuple(columns)), pending=pending, oldest=oldest, is_due=is_due)
            for *columns, pending, oldest, is_due in await self._rows(_WORK, now=now)
        ]

    async def plan_deliveries(
        self, webhook_id: str, events: Sequence[LinkEvent], *, after: int, until: int, now: datetime
    ) -> bool:
        values = {"id": webhook_id, "after": after, "until": until, "now": now}
        positions, slugs = [one.position for one in events], [one.link.slug for one in events]

        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                await connection.execute(sql.SHARE_SLUGS)
                planned = {"positions": positions, "slugs": slugs, **values}
                return bool(await rows_of(connection, _PLAN, planned))

        return await self._writing.run(work)

    async def take_deliveries(
        self, webhook_id: str, *, limit: int, lease: timedelta, now: datetime
    ) -> Sequence[DueDelivery]:
        taken = sorted(await self._written(_TAKE, id=webhook_id, limit=limit, now=now, until=now + lease))
        if not taken:
            return ()
        positions = [position for position, _ in taken]
        rows = map(_event_row, await self._rows(_AT, positions=positions, limit=len(taken)))
        events = {row.position: event_of(row) for row in rows}
        return [
            DueDelivery(position=position, attempts=attempts, event=events.get(position))
            for position, attempts in taken
        ]

    async def note_attempts(self, webhook_id: str, attempted: Mapping[int, Attempted]) -> None:
        outcomes = attempted.values()
        await self._written(
            _NOTE,
            id=webhook_id,
            positions=list(attempted),
            states=[str(one.state) for one in outcomes],
            times=[one.at for one in outcomes],
            nexts=[one.next_attempt_at for one in outcomes],
            statuses=[one.status for one in outcomes],
            problems=[one.problem for one in outcomes],
        )

    async def deliveries(self, webhook_id: str, *, before: int | None, limit: int) -> Sequence[Delivery]:
        first = _NEWEST if before is None else before
        return [_delivery(row) for row in await self._rows(_LISTED, id=webhook_id, before=first, limit=limit)]

    async def replay_dead(self, webhook_id: str, *, now: datetime) -> int:
        return len(await self._written(_REPLAY_DEAD, id=webhook_id, now=now))

    async def replay_after(self, webhook_id: str, position: int) -> bool:
        return bool(await self._written(_REPLAY_AFTER, id=webhook_id, position=position))

    async def _rows(self, statement: str, **values: Any) -> list[sql.Row]:
        return await self._connections.run(lambda connection: rows_of(connection, statement, values))

    async def _written(self, statement: str, **values: Any) -> list[sql.Row]:
        return await self._writing.run(lambda connection: rows_of(connection, statement, values))


def _event_row(row: sql.Row) -> EventRow:
    link, event = row[: sql.LINK_COLUMNS], row[sql.LINK_COLUMNS + 2 :]
    position, uid, kind, version, at, has_state, changed_at, slug, aliases = event[:9]
    return EventRow(
        position=position,
        uid=uid,
        kind=kind,
        version=version,
        at=at,
        link=None if link[0] is None else sql.link(link),
        fields=sql.fields_in(event[9:]) if has_state else None,
        slug=slug,
        aliases=None if aliases is None else tuple(aliases),
        changed_at=changed_at,
    )


def _values(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.webhook_id,
        "url": webhook.url,
        "name": webhook.name,
        "kinds": sorted(webhook.filter.kinds),
        "domain": webhook.filter.domain,
        "tag": webhook.filter.tag,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "secret": webhook.secret,
        "old_secret": webhook.old_secret,
        "old_until": webhook.old_until,
        "version": webhook.version,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
    }


def _webhook(row: sql.Row) -> Webhook:
    values = dict(zip(_WEBHOOK, row, strict=True))
    kinds = frozenset(filter(None, map(kind_of, values.pop("kinds"))))
    wanted = EventFilter(kinds=kinds, domain=values.pop("domain"), tag=values.pop("tag"))
    reason = disabled_reason(values.pop("disabled_reason"), is_enabled=values["enabled"])
    return Webhook(webhook_id=values.pop("id"), filter=wanted, disabled_reason=reason, **values)


def _delivery(row: sql.Row) -> Delivery:
    position, slug, state, attempts, next_at, created_at, attempted_at, status, problem, kind, uid = row
    return Delivery(
        position=position,
        slug=slug,
        state=DeliveryState(state),
        attempts=attempts,
        next_attempt_at=next_at,
        created_at=created_at,
        attempted_at=attempted_at,
        status=status,
        problem=problem,
        kind=kind_of(kind),
        uid=uid,
    )
