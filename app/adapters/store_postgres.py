"""`LinkStore` in PostgreSQL, shared by any number of processes on any number of machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from psycopg import Rollback

from app.adapters import store_postgres_sql as sql
from app.adapters.store_postgres_adds import JointAdds, insert
from app.adapters.store_postgres_pool import OLD_SCHEMA, Connection, Connections, rows_of
from app.domain.errors import Unavailable
from app.domain.events import ClicksCounted
from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug
from app.ports import (
    Added,
    ApiKey,
    Changed,
    IdempotentRequest,
    OutboxDepth,
    OutboxEvent,
    Page,
    Replayed,
    RequestMismatch,
    VersionMismatch,
)


@dataclass(frozen=True, slots=True)
class WalPosition:
    """
    How far a server is in the write-ahead log: on a primary, what is acknowledged is before it.

    Positions compare within a timeline only; each switch of the primary begins another one.
    """

    is_standby: bool
    timeline: int
    lsn: int


class PostgresStore:
    """Made by `open`; whoever opened it awaits `aclose`. Belongs to one event loop and process."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._adds = JointAdds(connections)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        role: str = "primary",
        max_connections: int = 8,
        max_waiting: int = 64,
        wait_timeout_s: float = 0.5,
        connect_timeout_s: int = 2,
        statement_timeout_s: float = 5.0,
    ) -> Self:
        """
        Prepare to talk to the server at *url*; it need not be up yet (see `ping`).

        Args:
            url: `postgresql://…`; what it says of `options`, `connect_timeout` and
                `target_session_attrs` is respected.
            role: of several hosts in *url*, which one: "primary" or "standby".
            max_connections: the sum over all processes stays below the server's own limit.
            max_waiting: calls that may wait for a connection; further ones fail at once.
            wait_timeout_s: how long they wait.
            connect_timeout_s: for each host in *url*; the driver takes 2 as the least.
            statement_timeout_s: enforced by the server; one that is silent for a second
                longer is hung up on.

        Raises:
            SettingsError: *url* cannot be parsed (it is not quoted: it holds the password).
        """
        connections = await Connections.open(
            url,
            role=role,
            max_connections=max_connections,
            max_waiting=max_waiting,
            wait_timeout_s=wait_timeout_s,
            connect_timeout_s=connect_timeout_s,
            statement_timeout_s=statement_timeout_s,
        )
        return cls(connections)

    async def add(
        self, new: Sequence[NewLink], *, now: datetime, request: IdempotentRequest | None = None
    ) -> Added | Replayed | RequestMismatch:
        """See `LinkStore.add`."""
        if not new:
            return Added((), ())
        links = [
            Link(slug=one.slug, fields=one.fields, version=1, created_at=now, updated_at=now) for one in new
        ]
        if request is not None:
            return await self._connections.run(lambda connection: _insert_once(connection, links, request))
        if len(links) == 1:
            return await self._adds.add(links[0])
        return await self._connections.run(lambda connection: insert(connection, links))

    async def get(self, slug: Slug) -> Link | None:
        """See `LinkStore.get`."""
        rows = await self._query(sql.SELECT_LINK, {"slug": slug})
        return sql.link(rows[0]) if rows else None

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        """See `LinkStore.get_many`."""
        links = map(sql.link, await self._query(sql.SELECT_LINKS, {"slugs": list(slugs)}))
        return {link.slug: link for link in links}

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """See `LinkStore.resolve`."""
        resolutions = map(sql.resolution, await self._query(sql.RESOLVE, {"slugs": list(slugs)}))
        return {resolution.slug: resolution for resolution in resolutions}

    async def page(self, *, after: int | None, limit: int) -> Page:
        """See `LinkStore.page`."""
        before = 2**63 - 1 if after is None else after
        rows = await self._query(sql.SELECT_PAGE, {"before": before, "limit": limit + 1})
        next_after = rows[limit - 1][-1] if len(rows) > limit else None
        return Page(tuple(sql.link(row) for row in rows[:limit]), next_after)

    async def update(
        self, slug: Slug, fields: LinkFields, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | None:
        """See `LinkStore.update`."""
        parameters = {"slug": slug, "now": now, **sql.field_values(fields)}
        return await self._change(slug, expected_version, sql.UPDATE_LINK, parameters)

    async def remove(
        self, slug: Slug, *, expected_version: int | None, now: datetime
    ) -> Changed | VersionMismatch | None:
        """See `LinkStore.remove`."""
        return await self._change(slug, expected_version, sql.REMOVE_LINK, {"slug": slug, "now": now})

    async def touch(self, slugs: Sequence[Slug]) -> Sequence[Changed]:
        """See `LinkStore.touch`."""
        asked = list(dict.fromkeys(slugs))

        async def work(connection: Connection) -> dict[Slug, Changed]:
            async with connection.transaction():
                await connection.execute(sql.LOCK_LINKS, {"slugs": asked})
                rows = await rows_of(connection, sql.TOUCH_LINKS, {"slugs": asked})
            return {row[0]: _changed(row) for row in rows}

        changes = await self._connections.run(work)
        return [changes[slug] for slug in asked if slug in changes]

    async def take_events(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:
        """See `LinkStore.take_events`."""
        rows = await self._query(sql.TAKE_EVENTS, {"limit": limit, "lease_s": lease_s})
        return [sql.event(*row) for row in sorted(rows)]

    async def drop_events(self, ids: Sequence[int]) -> None:
        """See `LinkStore.drop_events`."""
        await self._count(sql.DROP_EVENTS, {"ids": list(ids)})

    async def outbox_depth(self) -> OutboxDepth:
        """See `LinkStore.outbox_depth`."""
        [(rows, oldest_s)] = await self._query(sql.OUTBOX_DEPTH, {})
        return OutboxDepth(rows, oldest_s)

    async def forget_requests(self, *, before: datetime) -> int:
        """See `LinkStore.forget_requests`."""
        return await self._count(sql.FORGET_REQUESTS, {"before": before})

    async def fold_clicks(self, counted: ClicksCounted, *, now: datetime) -> bool:
        """See `LinkStore.fold_clicks`."""
        return bool(await self._query(sql.FOLD_CLICKS, {**sql.counted_values(counted), "now": now}))

    async def hourly_clicks(self, slug: Slug, *, since: datetime, until: datetime) -> Mapping[datetime, int]:
        """See `LinkStore.hourly_clicks`."""
        rows = await self._query(sql.SELECT_HOURS, {"slug": slug, "since": since, "until": until})
        return dict(rows)

    async def forget_batches(self, *, before: datetime) -> int:
        """See `LinkStore.forget_batches`."""
        return await self._count(sql.FORGET_BATCHES, {"before": before})

    async def lease_visits(self, slug: Slug) -> int | None:
        """See `LinkStore.lease_visits`."""
        rows = await self._query(sql.LEASE_VISITS, {"slug": slug})
        return rows[0][0] if rows else 0

    async def return_visits(self, slug: Slug, visits: int) -> None:
        """See `LinkStore.return_visits`."""
        await self._count(sql.RETURN_VISITS, {"slug": slug, "visits": visits})

    async def add_key(self, key: ApiKey) -> None:
        """See `LinkStore.add_key`."""
        await self._count(sql.INSERT_KEY, sql.key_values(key))

    async def get_key(self, key_id: str) -> ApiKey | None:
        """See `LinkStore.get_key`."""
        rows = await self._query(sql.SELECT_KEY, {"key_id": key_id})
        return sql.key(rows[0]) if rows else None

    async def list_keys(self) -> Sequence[ApiKey]:
        """See `LinkStore.list_keys`."""
        return [sql.key(row) for row in await self._query(sql.SELECT_KEYS, {})]

    async def revoke_key(self, key_id: str, *, now: datetime) -> bool:
        """See `LinkStore.revoke_key`."""
        return await self._count(sql.REVOKE_KEY, {"key_id": key_id, "now": now}) > 0

    async def ping(self) -> None:
        """See `LinkStore.ping`."""
        [(version,)] = await self._query(sql.SELECT_SCHEMA_VERSION, {})
        if version is None or version < sql.SCHEMA_VERSION:
            raise Unavailable("postgresql", OLD_SCHEMA)

    async def wal_position(self) -> WalPosition:
        """Return how far the server is. Raises Unavailable."""
        [row] = await self._query(sql.SELECT_WAL_POSITION, {})
        return WalPosition(*row)

    async def aclose(self) -> None:
        """See `LinkStore.aclose`. Calls under way are waited for."""
        await self._adds.drain()
        await self._connections.aclose()

    async def _change(
        self, slug: Slug, expected_version: int | None, statement: str, parameters: sql.Parameters
    ) -> Changed | VersionMismatch | None:
        async def work(connection: Connection) -> Changed | VersionMismatch | None:
            async with connection.transaction():
                rows = await rows_of(connection, sql.LOCK_LINK, {"slug": slug})
                current = sql.link(rows[0]) if rows else None
                if current is None or current.removed_at is not None:
                    return None
                if expected_version is not None and current.version != expected_version:
                    return VersionMismatch(current)
                [row] = await rows_of(connection, statement, parameters)
                return _changed(row)

        return await self._connections.run(work)

    async def _query(self, statement: str, parameters: sql.Parameters) -> list[sql.Row]:
        return await self._connections.run(lambda connection: rows_of(connection, statement, parameters))

    async def _count(self, statement: str, parameters: sql.Parameters) -> int:
        async def work(connection: Connection) -> int:
            return (await connection.execute(statement.encode(), parameters)).rowcount

        return await self._connections.run(work)


async def _insert_once(
    connection: Connection, links: Sequence[Link], request: IdempotentRequest
) -> Added | Replayed | RequestMismatch:
    slugs = [link.slug for link in links]
    memory = {"scope": request.scope, "key": request.key, "fingerprint": request.fingerprint}
    async with connection.transaction() as transaction:
        created_at = links[0].created_at
        values = {**memory, "slugs": slugs, "now": created_at}
        cursor = await connection.execute(sql.INSERT_REQUEST.encode(), values)
        if not cursor.rowcount:
            return await _replay(connection, request)
        added = await insert(connection, links)
        if len(added.events) < len(links):
            added = Added((None,) * len(links), ())
            raise Rollback(transaction)
    return added


async def _replay(connection: Connection, request: IdempotentRequest) -> Replayed | RequestMismatch:
    rows = await rows_of(connection, sql.SELECT_REQUEST, {"scope": request.scope, "key": request.key})
    if not rows:  # it was forgotten since the statement before
        raise Unavailable("postgresql", "the same request is being forgotten right now")
    fingerprint, slugs = rows[0]
    if fingerprint != request.fingerprint:
        return RequestMismatch()
    links = map(sql.link, await rows_of(connection, sql.SELECT_LINKS, {"slugs": slugs}))
    found = {link.slug: link for link in links}
    return Replayed(tuple(found[slug] for slug in slugs))


def _changed(row: sql.Row) -> Changed:
    link = sql.link(row)
    return Changed(link, sql.event(row[-1], link.slug, link.version))
