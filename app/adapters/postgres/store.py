"""
`Store` in PostgreSQL, shared by any number of processes on any number of machines.

One class has every method of a store, so they stand together; what is more than a few lines is in the modules
beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Self

from psycopg import Rollback, errors

from app.adapters.find_order import Effort
from app.adapters.postgres import blocks as block_rows
from app.adapters.postgres import console_sessions as session_rows
from app.adapters.postgres import domains as domain_rows
from app.adapters.postgres import find as finding
from app.adapters.postgres import history as past
from app.adapters.postgres import sql
from app.adapters.postgres import visits as visit_counts
from app.adapters.postgres.adds import JointAdds, insert
from app.adapters.postgres.aliases import Addresses, add_addressed, readdress
from app.adapters.postgres.batches import write_batch
from app.adapters.postgres.epoch import EpochReader
from app.adapters.postgres.events import PostgresEvents
from app.adapters.postgres.imports import insert_imported
from app.adapters.postgres.pool import OLD_SCHEMA, Connection, Connections, rows_of
from app.adapters.postgres.pool_state import PoolState
from app.concurrency.actors import actor, owner_of
from app.concurrency.origins import origin
from app.domain.blocks import Block, BlockChange
from app.domain.domains import Domain, DomainSettings
from app.domain.errors import Contended, Unavailable
from app.domain.events import ClicksCounted, VisitsDescribed
from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug
from app.domain.origin import Origin
from app.domain.reach import EVERYTHING, Reach
from app.domain.visits import ValueVisits
from app.migrations import latest_version
from app.ports import (
    MAX_RETAGGED,
    OUTBOX_LONGEST_WAIT_S,
    Added,
    AddressTaken,
    Answered,
    ApiKey,
    BlockPage,
    Changed,
    ConsoleSession,
    Decide,
    ExportPage,
    ExternalIdTaken,
    FoundPage,
    IdempotentRequest,
    ImportedLink,
    LinkHistory,
    LinkQuery,
    LinkState,
    Merge,
    OutboxDepth,
    OutboxEvent,
    Page,
    PeriodVisits,
    Position,
    Replayed,
    RequestMismatch,
    TagCount,
    Totals,
    VersionMismatch,
    Wanted,
)
from app.wire import encode_origin

# Fewer connections are shared by reads and writes.
_SEPARATE = 4
# Slugs of another batch, or the same external id, may come between reading and writing.
_BATCH_TRIES = 5


@dataclass(frozen=True, slots=True)
class WalPosition:
    """
    A position in the write-ahead log. On a primary, every acknowledged change is before it.

    Positions compare within one timeline only; each failover starts another.
    """

    is_standby: bool
    timeline: int
    lsn: int


class PostgresStore(PostgresEvents):
    """Made by `open`, closed with `aclose`. Belongs to one event loop and process."""

    def __init__(
        self,
        connections: Connections,
        *,
        writing: Connections | None = None,
        find_effort: Effort = finding.EFFORT,
    ) -> None:
        self._connections = connections
        self._find_effort = find_effort
        # Apart, so that writes which wait for a synchronous standby leave the look-ups theirs.
        self._writing = writing or connections
        self._adds = JointAdds(self._writing)
        self._epoch = EpochReader(self._connections, self._writing)

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
        find_effort: Effort = finding.EFFORT,
    ) -> Self:
        """
        Open a connection pool for the server at *url*, which need not be up yet (see `ping`).

        Args:
            url: `postgresql://…`; its `options`, `connect_timeout` and `target_session_attrs` are
                respected.
            role: which of several hosts in *url* to use: "primary" or "standby".
            max_connections: the sum over all processes must stay below the server's limit. From four
                on, half of them are for writes, and look-ups have the others.
            max_waiting: calls that may wait for a connection; further ones fail at once.
            wait_timeout_s: how long they wait.
            connect_timeout_s: for each host in *url*; the driver's minimum is 2.
            statement_timeout_s: enforced by the server; the connection is closed when the server is
                silent for a second longer.
            find_effort: of listings; walks are bounded in rows.

        Raises:
            SettingsError: *url* cannot be parsed (the message omits it, as it holds the password).
        """
        open_some = partial(
            Connections.open,
            url,
            role=role,
            max_waiting=max_waiting,
            wait_timeout_s=wait_timeout_s,
            connect_timeout_s=connect_timeout_s,
            statement_timeout_s=statement_timeout_s,
        )
        for_writes = max_connections // 2 if role == "primary" and max_connections >= _SEPARATE else 0
        connections = await open_some(max_connections=max_connections - for_writes)
        if not for_writes:
            return cls(connections, find_effort=find_effort)
        try:
            writing = await open_some(max_connections=for_writes)
            return cls(connections, writing=writing, find_effort=find_effort)
        except BaseException:
            await connections.aclose()
            raise

    async def add(
        self,
        new: Sequence[NewLink],
        *,
        now: datetime,
        request: IdempotentRequest | None = None,
        removed_before: datetime | None = None,
    ) -> Added | Replayed | RequestMismatch:
        if not new:
            return Added((), ())
        if new[0].aliases or removed_before is not None:
            [one] = new
            common = {"now": now, "request": request, "removed_before": removed_before, **_whose()}
            return await self._writing.run(lambda connection: add_addressed(connection, one, **common))
        links = [
            Link(
                slug=one.slug,
                fields=one.fields,
                version=1,
                created_at=now,
                updated_at=now,
                owner=owner_of(actor()),
            )
            for one in new
        ]
        slugs = [link.slug for link in links]
        whose, makers = dict.fromkeys(slugs, origin()), dict.fromkeys(slugs, actor())
        if request is not None:
            return await self._writing.run(
                lambda connection: _insert_once(connection, links, request, whose, makers)
            )
        if len(links) == 1:
            return await self._adds.add(links[0])
        return await self._writing.run(lambda connection: insert(connection, links, whose, makers))

    async def get(self, slug: Slug) -> Link | None:
        rows = await self._query(sql.SELECT_LINK, {"slug": slug})
        return sql.link(rows[0]) if rows else None

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        rows = await self._query(sql.SELECT_LINKS, {"slugs": list(slugs)})
        return {row[-1]: sql.link(row) for row in rows}

    async def find_external(self, external_ids: Sequence[str]) -> Mapping[str, Link]:
        rows = await self._query(sql.SELECT_EXTERNAL, {"ids": list(external_ids)})
        return {link.fields.external_id or "": link for link in map(sql.link, rows)}

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        resolutions = map(sql.resolution, await self._query(sql.RESOLVE, {"slugs": list(slugs)}))
        return {resolution.slug: resolution for resolution in resolutions}

    async def page(self, *, after: int | None, limit: int) -> Page:
        before = 2**63 - 1 if after is None else after
        rows = await self._query(sql.SELECT_PAGE, {"before": before, "limit": limit + 1})
        next_after = rows[limit - 1][-1] if len(rows) > limit else None
        return Page(tuple(sql.link(row) for row in rows[:limit]), next_after)

    async def find(self, query: LinkQuery, *, after: Position | None, limit: int, now: datetime) -> FoundPage:
        effort = self._find_effort
        return await self._connections.run(
            partial(finding.find, query=query, after=after, limit=limit, now=now, effort=effort)
        )

    async def count(self, query: LinkQuery, *, now: datetime, limit_s: float) -> int | None:
        return await self._connections.run(partial(finding.count, query=query, now=now, limit_s=limit_s))

    async def totals(self, *, limit_s: float) -> Totals | None:
        return await self._connections.run(partial(finding.totals, limit_s=limit_s))

    async def tags(self, *, after: str | None, limit: int, reach: Reach = EVERYTHING) -> Sequence[TagCount]:
        return await self._connections.run(partial(finding.tags, after=after, limit=limit, reach=reach))

    async def retag(
        self, tag: str, new: str | None, *, limit: int, now: datetime, reach: Reach = EVERYTHING
    ) -> Sequence[Changed]:
        bound = min(limit, MAX_RETAGGED)
        return await self._writing.run(
            partial(finding.retag, tag=tag, new=new, limit=bound, now=now, reach=reach, **_whose())
        )

    async def add_imported(self, links: Sequence[ImportedLink], *, now: datetime) -> Sequence[Link | None]:
        if not links:
            return ()
        maker = actor()
        return await self._writing.run(lambda connection: insert_imported(connection, links, now, maker))

    async def find_imported(self, keys: Sequence[str]) -> Mapping[str, Slug]:
        return dict(await self._query(sql.SELECT_IMPORTED, {"keys": list(keys)})) if keys else {}

    async def spent_visits(self, slugs: Sequence[Slug]) -> Mapping[Slug, int]:
        return dict(await self._query(sql.SELECT_SPENT, {"slugs": list(slugs)}))

    async def export_page(self, *, after: int | None, limit: int) -> ExportPage:
        rows = await self._query(sql.SELECT_EXPORT, {"after": after or 0, "limit": limit + 1})
        next_after = rows[limit - 1][-1] if len(rows) > limit else None
        return ExportPage(tuple((sql.link(row), row[-2]) for row in rows[:limit]), next_after)

    async def update(
        self,
        slug: Slug,
        fields: LinkFields,
        *,
        expected_version: int,
        now: datetime,
        owner: str | None = None,
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        parameters = {"slug": slug, "now": now, "owner": owner, **_whose(), **sql.field_values(fields)}
        try:
            return await self._change(slug, expected_version, sql.UPDATE_LINK, parameters)
        except errors.UniqueViolation:
            return await self._holder(fields.external_id)

    async def remove(
        self, slug: Slug, *, expected_version: int | None, now: datetime
    ) -> Changed | VersionMismatch | None:
        parameters = {"slug": slug, "now": now, **_whose()}
        return await self._change(slug, expected_version, sql.REMOVE_LINK, parameters)

    async def readdress(
        self,
        slug: Slug,
        *,
        to: Slug,
        aliases: Sequence[Slug],
        expected_version: int,
        now: datetime,
        request: IdempotentRequest | None = None,
        is_undo: bool = False,
    ) -> Changed | Replayed | RequestMismatch | VersionMismatch | AddressTaken | None:
        wanted = Addresses(slug, to, tuple(dict.fromkeys(aliases)), expected_version)
        common = {"now": now, "request": request, "is_undo": is_undo, **_whose()}
        return await self._writing.run(lambda connection: readdress(connection, wanted, **common))

    async def touch(self, slugs: Sequence[Slug]) -> Sequence[Changed]:
        asked = list(dict.fromkeys(slugs))
        parameters = {"slugs": asked, **_origin()}

        async def work(connection: Connection) -> dict[Slug, Changed]:
            async with connection.transaction():
                await connection.execute(sql.LOCK_LINKS, {"slugs": asked})
                rows = await rows_of(connection, sql.TOUCH_LINKS, parameters)
            return {row[0]: _changed(row) for row in rows}

        changes = await self._writing.run(work)
        return [changes[slug] for slug in asked if slug in changes]

    async def write_batch(
        self, wanted: Wanted, decide: Decide, *, now: datetime, request: IdempotentRequest | None = None
    ) -> Sequence[Changed] | Answered | RequestMismatch:
        common = {"request": request, "now": now, **_whose()}
        for _ in range(_BATCH_TRIES):
            outcome = await self._writing.run(
                lambda connection: write_batch(connection, wanted, decide, **common)
            )
            if outcome is not None:
                return outcome
        raise Contended("postgresql", f"{_BATCH_TRIES} attempts at a batch met other writers")

    async def history(self, slug: Slug, *, before: int | None, limit: int) -> LinkHistory | None:
        return await self._connections.run(partial(past.page, slug=slug, before=before, limit=limit))

    async def restore(
        self, slug: Slug, state: LinkState, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        parameters = {"slug": slug, **past.state_values(state, now), **_whose()}
        try:
            return await self._change(
                slug, expected_version, past.RESTORE, parameters, takes_removed=True, then=past.MARK_UNDO
            )
        except errors.UniqueViolation:
            return await self._holder(state.fields.external_id)

    async def forget_history(self, *, before: datetime, limit: int) -> int:
        return await self._count(past.FORGET, {"before": before, "limit": limit})

    async def take_events(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:
        longest_s = max(OUTBOX_LONGEST_WAIT_S, 2 * lease_s)
        parameters = {"limit": limit, "lease_s": lease_s, "longest_s": longest_s}
        rows = await self._write(sql.TAKE_EVENTS, parameters)
        return [sql.event(*row) for row in sorted(rows)]

    async def drop_events(self, ids: Sequence[int]) -> None:
        await self._count(sql.DROP_EVENTS, {"ids": list(ids)})

    async def outbox_depth(self) -> OutboxDepth:
        [row] = await self._query(sql.OUTBOX_DEPTH, {})
        return OutboxDepth(*row)

    async def forget_requests(self, *, before: datetime) -> int:
        return await self._count(sql.FORGET_REQUESTS, {"before": before})

    async def add_clicks(self, counted: ClicksCounted, *, now: datetime) -> bool:
        values = {**sql.counted_values(counted), "now": now}

        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                await connection.execute(sql.SHARE_SLUGS)
                return bool(await rows_of(connection, sql.ADD_CLICKS, values))

        return await self._writing.run(work)

    async def hourly_clicks(self, slug: Slug, *, since: datetime, until: datetime) -> Mapping[datetime, int]:
        rows = await self._query(sql.SELECT_HOURS, {"slug": slug, "since": since, "until": until})
        return dict(rows)

    async def forget_batches(self, *, before: datetime) -> int:
        return await self._count(sql.FORGET_BATCHES, {"before": before})

    async def add_visits(self, described: Sequence[VisitsDescribed], *, now: datetime, merge: Merge) -> int:
        return await self._writing.run(partial(visit_counts.add, described=described, now=now, merge=merge))

    async def roll_up_visits(self, *, since: datetime, until: datetime) -> bool:
        return await self._writing.run(partial(visit_counts.roll_up, since=since, until=until))

    async def visit_values(
        self, slug: Slug, *, since: datetime, until: datetime, limit: int
    ) -> Sequence[ValueVisits]:
        return await self._connections.run(
            partial(visit_counts.values, slug=slug, since=since, until=until, limit=limit)
        )

    async def visit_kinds(
        self, slug: Slug, *, starts: Sequence[datetime], until: datetime
    ) -> Sequence[PeriodVisits]:
        return await self._connections.run(partial(visit_counts.kinds, slug=slug, starts=starts, until=until))

    async def visitor_sketches(self, slug: Slug, *, first: date, last: date) -> Sequence[bytes]:
        days = {"slug": slug, "first": first, "last": last}
        return [bytes(sketch) for (sketch,) in await self._query(visit_counts.SKETCHES, days)]

    async def visitor_key(self, day: date, proposed: bytes) -> bytes:
        [(key,)] = await self._write(visit_counts.KEY, {"day": day, "key": proposed})
        return bytes(key)

    async def forget_visits(self, *, before: datetime, limit: int) -> int:
        return await self._writing.run(partial(visit_counts.forget, before=before, limit=limit))

    async def forget_visitor_keys(self, *, before: date) -> None:
        await self._count(visit_counts.FORGET_KEYS, {"before": before})

    async def lease_quota(self, slug: Slug) -> int | None:
        # None is there: the link may have got another slug between look-up and lock.
        rows = await self._write(sql.LEASE_QUOTA, {"slug": slug})
        rows = rows or await self._write(sql.LEASE_QUOTA, {"slug": slug})
        return rows[0][0] if rows else 0

    async def quota_left(self, slug: Slug) -> int | None:
        rows = await self._query(sql.QUOTA_LEFT, {"slug": slug})
        return rows[0][0] if rows else 0

    async def return_quota(self, slug: Slug, visits: int, version: int) -> None:
        values = {"slug": slug, "visits": visits, "version": version}
        if not await self._count(sql.RETURN_QUOTA, values):
            await self._count(sql.RETURN_QUOTA, values)  # as above

    async def add_key(self, key: ApiKey) -> None:
        await self._count(sql.INSERT_KEY, sql.key_values(key))

    async def get_key(self, key_id: str) -> ApiKey | None:
        rows = await self._query(sql.SELECT_KEY, {"key_id": key_id})
        return sql.key(rows[0]) if rows else None

    async def list_keys(self) -> Sequence[ApiKey]:
        return [sql.key(row) for row in await self._query(sql.SELECT_KEYS, {})]

    async def revoke_key(self, key_id: str, *, now: datetime) -> bool:
        return await self._count(sql.REVOKE_KEY, {"key_id": key_id, "now": now}) > 0

    async def rotate_key(self, key_id: str, *, old: bytes, new: bytes, old_until: datetime) -> bool:
        values = {"key_id": key_id, "old": old, "new": new, "old_until": old_until}
        return await self._count(sql.ROTATE_KEY, values) > 0

    async def note_key_uses(self, uses: Mapping[str, datetime]) -> None:
        await self._count(sql.NOTE_KEY_USES, {"ids": list(uses), "times": list(uses.values())})

    async def add_session(self, session: ConsoleSession, *, keep: int) -> None:
        await self._writing.run(partial(session_rows.add, session=session, keep=keep))

    async def get_session(self, id_hash: bytes) -> ConsoleSession | None:
        rows = await self._query(session_rows.SELECT, {"id_hash": id_hash})
        return session_rows.session(rows[0]) if rows else None

    async def list_sessions(self) -> Sequence[ConsoleSession]:
        return [session_rows.session(row) for row in await self._query(session_rows.SELECT_ALL, {})]

    async def end_session(self, id_hash: bytes) -> bool:
        return await self._count(session_rows.END, {"id_hash": id_hash}) > 0

    async def forget_sessions(self, *, before: datetime, limit: int) -> int:
        return await self._count(session_rows.FORGET, {"before": before, "limit": limit})

    async def add_blocks(self, blocks: Sequence[Block], *, now: datetime) -> Sequence[Block]:
        return await self._writing.run(lambda connection: block_rows.add(connection, blocks, now))

    async def remove_blocks(self, blocks: Sequence[Block]) -> Sequence[Block]:
        return await self._writing.run(lambda connection: block_rows.remove(connection, blocks))

    async def block_page(self, *, before: int | None, limit: int) -> BlockPage:
        parameters = {"before": 2**63 - 1 if before is None else before, "limit": limit + 1}
        return block_rows.page(await self._query(block_rows.SELECT_PAGE, parameters), limit)

    async def blocks_version(self) -> int:
        [(version,)] = await self._query(block_rows.SELECT_VERSION, {})
        return int(version)

    async def blocks_since(self, version: int, *, limit: int) -> Sequence[BlockChange]:
        parameters = {"version": version, "limit": limit}
        return block_rows.changes(await self._query(block_rows.SELECT_SINCE, parameters))

    async def domains_version(self) -> int:
        [(version,)] = await self._query(domain_rows.SELECT_VERSION, {})
        return int(version)

    async def domains(self) -> Sequence[Domain]:
        return [domain_rows.domain(row) for row in await self._query(domain_rows.SELECT_ALL, {})]

    async def add_domain(
        self, host: str, settings: DomainSettings, *, case_sensitive: bool, now: datetime
    ) -> Domain | None:
        work = partial(domain_rows.add, host=host, settings=settings, case_sensitive=case_sensitive, now=now)
        return await self._writing.run(work)

    async def change_domain(
        self, domain_id: int, settings: DomainSettings, *, expected_version: int, now: datetime
    ) -> Domain | None:
        work = partial(
            domain_rows.change, domain_id=domain_id, settings=settings, expected=expected_version, now=now
        )
        return await self._writing.run(work)

    async def remove_domain(self, domain_id: int, *, now: datetime) -> bool:
        return await self._writing.run(partial(domain_rows.remove, domain_id=domain_id, now=now))

    async def ping(self) -> None:
        [(version,)] = await self._query(sql.SELECT_SCHEMA_VERSION, {})
        if version is None or version < latest_version("postgres"):
            raise Unavailable("postgresql", OLD_SCHEMA)
        await self._writing.writes.check(self.try_write)

    async def try_write(self) -> None:
        async def work(connection: Connection) -> None:
            async with connection.transaction(force_rollback=True):
                await connection.execute(sql.TRY_WRITE)

        await self._writing.run(work)

    async def epoch(self) -> int:
        return await self._epoch.read()

    async def wal_position(self) -> WalPosition:
        """Return the position of the server. Raises Unavailable."""
        [row] = await self._query(sql.SELECT_WAL_POSITION, {})
        return WalPosition(*row)

    def pools(self) -> Mapping[str, PoolState]:
        """Return the state of each pool, by what it is for; "all" if there is but one."""
        if self._writing is self._connections:
            return {"all": self._connections.state}
        return {"look_up": self._connections.state, "write": self._writing.state}

    async def aclose(self) -> None:
        """Pending calls are finished first."""
        async with AsyncExitStack() as stack:
            # One after the other: a task for each could be cancelled before it begins.
            for pool in dict.fromkeys((self._connections, self._writing)):
                stack.push_async_callback(pool.aclose)
            await self._adds.drain()

    async def _holder(self, external_id: str | None) -> ExternalIdTaken:
        """Return which link has *external_id*, after it was refused."""
        holders = await self.find_external([external_id or ""])
        if not holders:
            raise Contended("postgresql", "the link that has the external id was changed concurrently")
        return ExternalIdTaken(*holders.values())

    async def _change(
        self,
        slug: Slug,
        expected_version: int | None,
        statement: str,
        parameters: sql.Parameters,
        *,
        takes_removed: bool = False,
        then: str | None = None,
    ) -> Changed | VersionMismatch | None:
        async def work(connection: Connection) -> Changed | VersionMismatch | None:
            async with connection.transaction():
                rows = await rows_of(connection, sql.LOCK_LINK, {"slug": slug})
                current = sql.link(rows[0]) if rows else None
                is_kept = current is not None and current.removed_at is not None
                if current is None or current.alias_of or (is_kept and not takes_removed):
                    return None
                if expected_version is not None and current.version != expected_version:
                    return VersionMismatch(current)
                [row] = await rows_of(connection, statement, parameters)
                changed = _changed(row)
                if then is not None:
                    values = {"slug": slug, "version": changed.link.version}
                    await connection.execute(then.encode(), values)
                return changed

        return await self._writing.run(work)

    async def _query(self, statement: str, parameters: sql.Parameters) -> list[sql.Row]:
        return await self._connections.run(lambda connection: rows_of(connection, statement, parameters))

    async def _write(self, statement: str, parameters: sql.Parameters) -> list[sql.Row]:
        return await self._writing.run(lambda connection: rows_of(connection, statement, parameters))

    async def _count(self, statement: str, parameters: sql.Parameters) -> int:
        async def work(connection: Connection) -> int:
            return (await connection.execute(statement.encode(), parameters)).rowcount

        return await self._writing.run(work)


def _whose() -> sql.Parameters:
    return {**_origin(), "actor": actor()}


def _origin() -> sql.Parameters:
    return {"origin": encode_origin(origin())}


async def _insert_once(
    connection: Connection,
    links: Sequence[Link],
    request: IdempotentRequest,
    whose: Mapping[Slug, Origin | None],
    makers: Mapping[Slug, str | None],
) -> Added | Replayed | RequestMismatch:
    slugs = [link.slug for link in links]
    memory = {"scope": request.scope, "key": request.key, "fingerprint": request.fingerprint}
    async with connection.transaction() as transaction:
        created_at = links[0].created_at
        values = {**memory, "slugs": slugs, "now": created_at}
        cursor = await connection.execute(sql.INSERT_REQUEST.encode(), values)
        if not cursor.rowcount:
            return await _replay(connection, request)
        added = await insert(connection, links, whose, makers)
        if len(added.events) < len(links):
            added = Added((None,) * len(links), ())
            raise Rollback(transaction)
    return added


async def _replay(connection: Connection, request: IdempotentRequest) -> Replayed | RequestMismatch:
    rows = await rows_of(connection, sql.SELECT_REQUEST, {"scope": request.scope, "key": request.key})
    if not rows:  # `forget_requests` deleted it since the previous statement
        raise Unavailable("postgresql", "the same request was deleted concurrently")
    fingerprint, slugs = rows[0]
    if fingerprint != request.fingerprint:
        return RequestMismatch()
    found = {row[-1]: sql.link(row) for row in await rows_of(connection, sql.SELECT_SERVED, {"slugs": slugs})}
    return Replayed(tuple(found[slug] for slug in slugs))


def _changed(row: sql.Row) -> Changed:
    link = sql.link(row)
    return Changed(link, sql.event(row[-2], link.slug, link.version, row[-1]))
