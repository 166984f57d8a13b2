"""
`Store` in one SQLite file, for a gateway that runs alone on its machine.

Reads run in the event loop: they take microseconds, and a thread switch takes longer. Listings by filters
have a thread (see `app.adapters.sqlite.find`). Writes go through one thread, because a commit waits for the
disk; writes that arrive meanwhile share the next commit. Other processes may use the same file at the same
time.

Times are microseconds since 1970 in UTC, lists are JSON (see `app/migrations/sqlite`).

One class has every method of a store, so they stand together; what is more than a few lines is in the modules
beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import apsw
import msgspec

from app.adapters.find_order import Effort, within
from app.adapters.sqlite import aliases as addresses
from app.adapters.sqlite import batches, find_sql, imports, sql
from app.adapters.sqlite import blocks as block_rows
from app.adapters.sqlite import console_sessions as session_rows
from app.adapters.sqlite import domains as domain_rows
from app.adapters.sqlite import history as past
from app.adapters.sqlite import visits as visit_counts
from app.adapters.sqlite.events import SqliteEvents
from app.adapters.sqlite.find import EFFORT, Finder
from app.adapters.sqlite.writer import OLD_SCHEMA, NothingStored, Writer, translated
from app.adapters.visit_rows import parts_by_tags
from app.concurrency.actors import actor, owner_of
from app.concurrency.origins import origin
from app.domain.blocks import Block, BlockChange
from app.domain.domains import Domain, DomainSettings
from app.domain.errors import Contended, Unavailable
from app.domain.events import ClicksCounted, VisitsDescribed
from app.domain.link import Link, LinkFields, NewLink, Resolution, Slug
from app.domain.reach import EVERYTHING, Reach
from app.domain.visits import ValueVisits
from app.migrations import latest_version
from app.migrations.sqlite_file import check_log
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
from app.resilience.deadline import ADMIN_S
from app.wire import encode_origin

# In KiB, negative as SQLite wants it. Most pages of an index of a million links are in it after a while.
_FINDER_CACHE = -32_768
# A batch decides on slugs without a look at them.
_BATCH_TRIES = 5


class SqliteStore(SqliteEvents):
    """Made by `open`, closed with `aclose`. Belongs to one event loop and process."""

    def __init__(self, reader: apsw.Connection, writer: Writer, finder: Finder) -> None:
        self._reader = reader
        self._writer = writer
        self._finder = finder

    @classmethod
    async def open(cls, path: Path, *, busy_timeout_s: float = 5.0, find_effort: Effort = EFFORT) -> Self:
        """
        Open the file at *path*, which `migrate` has created.

        Args:
            path: on a local disk; WAL does not work across a network.
            busy_timeout_s: how long a write waits for a write of another process.
            find_effort: of listings; walks are bounded in instructions of SQLite's virtual machine.

        Raises:
            Unavailable: the file does not exist, or is not a database.
        """
        check_log(path)
        with translated():
            writing = _connect(path, busy_timeout_s)
            reading = _connect(path, 0.05)  # a wait here blocks the event loop
            reading.pragma("query_only", 1)
            finding = _connect(path, busy_timeout_s)
            finding.pragma("query_only", 1)
            finding.pragma("cache_size", _FINDER_CACHE)
        return cls(reading, Writer(writing, path), Finder(finding, find_effort))

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
        whose, maker = encode_origin(origin()), actor()
        if new[0].aliases or removed_before is not None:
            [one] = new
            return await self._writer.run(
                partial(
                    addresses.add,
                    new=one,
                    now=now,
                    request=request,
                    removed_before=removed_before,
                    origin=whose,
                    actor=maker,
                )
            )

        def work(db: apsw.Connection) -> Added | Replayed | RequestMismatch:
            if request is not None and (answer := addresses.replay(db, request)) is not None:
                return answer
            if request is None:
                return _insert(db, new, now, whose, maker)
            slugs = [one.slug for one in new]
            db.execute("SAVEPOINT request")
            added = _insert(db, new, now, whose, maker)
            if len(added.events) < len(new):
                db.execute("ROLLBACK TO request")
                added = Added((None,) * len(slugs), ())
            else:
                addresses.remember(db, request, slugs, now)
            db.execute("RELEASE request")
            return added

        return await self._writer.run(work)

    async def get(self, slug: Slug) -> Link | None:
        with translated():
            return _select_link(self._reader, slug)

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Link]:
        with translated():
            return _select_links(self._reader, slugs)

    async def find_external(self, external_ids: Sequence[str]) -> Mapping[str, Link]:
        with translated():
            return batches.select_external(self._reader, external_ids)

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        with translated():
            links = _select_links(self._reader, slugs)
        return {slug: Resolution.of(link, slug) for slug, link in links.items()}

    async def page(self, *, after: int | None, limit: int) -> Page:
        before = 2**63 - 1 if after is None else after
        with translated():
            rows = sql.rows(self._reader, sql.SELECT_PAGE, (before, limit + 1))
        next_after = rows[limit - 1][-1] if len(rows) > limit else None
        return Page(tuple(sql.link(row) for row in rows[:limit]), next_after)

    async def find(self, query: LinkQuery, *, after: Position | None, limit: int, now: datetime) -> FoundPage:
        return await self._finder.find(query, after, limit, now)

    async def count(self, query: LinkQuery, *, now: datetime, limit_s: float) -> int | None:
        return await self._finder.count(query, now, limit_s)

    async def totals(self, *, limit_s: float) -> Totals | None:
        return await self._finder.totals(limit_s)

    async def tags(self, *, after: str | None, limit: int, reach: Reach = EVERYTHING) -> Sequence[TagCount]:
        return await self._finder.tags(after, limit, within(reach))

    async def retag(
        self, tag: str, new: str | None, *, limit: int, now: datetime, reach: Reach = EVERYTHING
    ) -> Sequence[Changed]:
        among = within(reach)
        asked = {**find_sql.bindings(among, None), "tag": tag, "limit": min(limit, MAX_RETAGGED)}
        whose = encode_origin(origin())
        common = {"now": sql.micros(now), "actor": actor()}

        def work(db: apsw.Connection) -> list[Changed]:
            changes: list[Changed | None] = []
            while True:
                for slug, text in sql.rows(db, find_sql.select_tagged(among), asked):
                    tags = msgspec.json.decode(text)
                    if tag in tags:
                        values = {"tags": sql.json(_retagged(tags, tag, new)), **common}
                        changes.append(_apply(db, slug, find_sql.SET_TAGS, values, whose))
                if changes:
                    return [change for change in changes if change is not None]
                db.execute(find_sql.FORGET_STALE, (tag,))
                if not db.changes():
                    return []

        return await self._writer.run(work, alone=True)

    async def add_imported(self, links: Sequence[ImportedLink], *, now: datetime) -> Sequence[Link | None]:
        maker = actor()
        if not links:
            return ()
        return await self._writer.run(lambda db: imports.insert(db, links, now, maker), alone=True)

    async def find_imported(self, keys: Sequence[str]) -> Mapping[str, Slug]:
        with translated():
            return imports.select_keys(self._reader, keys)

    async def spent_visits(self, slugs: Sequence[Slug]) -> Mapping[Slug, int]:
        with translated():
            return dict(sql.rows(self._reader, sql.SELECT_SPENT, (sql.json(slugs),)))

    async def export_page(self, *, after: int | None, limit: int) -> ExportPage:
        with translated():
            rows = sql.rows(self._reader, sql.SELECT_EXPORT, (after or 0, limit + 1))
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
        values = {**sql.field_values(fields), "now": sql.micros(now), "actor": actor(), "owner": owner}
        taken = fields.external_id
        return await self._change(slug, expected_version, sql.UPDATE_LINK, values, external_id=taken)

    async def remove(
        self, slug: Slug, *, expected_version: int | None, now: datetime
    ) -> Changed | VersionMismatch | None:
        values = {"now": sql.micros(now), "actor": actor()}
        outcome = await self._change(slug, expected_version, sql.REMOVE_LINK, values)
        return cast("Changed | VersionMismatch | None", outcome)

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
        work = partial(
            addresses.readdress,
            slug=slug,
            to=to,
            aliases=tuple(dict.fromkeys(aliases)),
            expected_version=expected_version,
            now=now,
            request=request,
            is_undo=is_undo,
            origin=encode_origin(origin()),
            actor=actor(),
        )
        return await self._writer.run(work)

    async def touch(self, slugs: Sequence[Slug]) -> Sequence[Changed]:
        whose = encode_origin(origin())

        def work(db: apsw.Connection) -> list[Changed]:
            changes = (_apply(db, slug, sql.TOUCH_LINK, {}, whose) for slug in dict.fromkeys(slugs))
            return [change for change in changes if change is not None]

        return await self._writer.run(work)

    async def write_batch(
        self, wanted: Wanted, decide: Decide, *, now: datetime, request: IdempotentRequest | None = None
    ) -> Sequence[Changed] | Answered | RequestMismatch:
        work = partial(
            batches.write_batch,
            wanted=wanted,
            decide=decide,
            request=request,
            now=now,
            origin=encode_origin(origin()),
            actor=actor(),
        )
        for _ in range(_BATCH_TRIES):
            with suppress(NothingStored):
                return await self._writer.run(work, alone=True)
        raise Contended("sqlite", f"{_BATCH_TRIES} random slugs in a row were taken")

    async def history(self, slug: Slug, *, before: int | None, limit: int) -> LinkHistory | None:
        with translated():
            return past.page(self._reader, slug, before, limit)

    async def restore(
        self, slug: Slug, state: LinkState, *, expected_version: int, now: datetime
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        values = {**past.state_values(state, now), "actor": actor()}
        external_id = None if state.removed else state.fields.external_id
        return await self._change(
            slug, expected_version, past.RESTORE, values, external_id=external_id, takes_removed=True
        )

    async def forget_history(self, *, before: datetime, limit: int) -> int:
        return await self._writer.run(partial(past.forget, before=before, limit=limit))

    async def take_events(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:

        def work(db: apsw.Connection) -> list[OutboxEvent]:
            longest_s = max(OUTBOX_LONGEST_WAIT_S, 2 * lease_s)
            bindings = (round(lease_s * 1_000_000), limit, round(longest_s * 1_000_000))
            rows = sql.rows(db, sql.TAKE_EVENTS, bindings)
            return [sql.event(*row) for row in sorted(rows)]

        return await self._writer.run(work)

    async def drop_events(self, ids: Sequence[int]) -> None:
        await self._writer.run(lambda db: sql.rows(db, sql.DROP_EVENTS, (sql.json(ids),)))

    async def outbox_depth(self) -> OutboxDepth:
        with translated():
            [(rows, oldest_us, first_id)] = sql.rows(self._reader, sql.OUTBOX_DEPTH)
        return OutboxDepth(rows, max(0.0, oldest_us / 1_000_000), first_id)

    async def forget_requests(self, *, before: datetime) -> int:
        bindings = (sql.micros(before),)
        return await self._writer.run(lambda db: len(sql.rows(db, sql.FORGET_REQUESTS, bindings)))

    async def add_clicks(self, counted: ClicksCounted, *, now: datetime) -> bool:
        clicks, hour = sql.json_object(counted.clicks), sql.micros(counted.hour)

        def work(db: apsw.Connection) -> bool:
            if not sql.rows(db, sql.INSERT_BATCH, (counted.batch, sql.micros(now))):
                return False
            sql.rows(db, sql.ADD_TO_TOTALS, (clicks, hour))
            sql.rows(db, sql.NOTE_FIRST_VISITS, (clicks, hour, sql.micros(now)))
            sql.rows(db, sql.ADD_TO_HOURS, (clicks, hour))
            return True

        return await self._writer.run(work)

    async def hourly_clicks(self, slug: Slug, *, since: datetime, until: datetime) -> Mapping[datetime, int]:
        bindings = (slug, sql.micros(since), sql.micros(until))
        with translated():
            rows = sql.rows(self._reader, sql.SELECT_HOURS, bindings)
        return {cast("datetime", sql.time(hour)): clicks for hour, clicks in rows}

    async def forget_batches(self, *, before: datetime) -> int:
        bindings = (sql.micros(before),)
        return await self._writer.run(lambda db: len(sql.rows(db, sql.FORGET_BATCHES, bindings)))

    async def add_visits(self, described: Sequence[VisitsDescribed], *, now: datetime, merge: Merge) -> int:
        traits = await self._writer.run(lambda db: visit_counts.traits(db, described))
        known = 0
        for part in parts_by_tags(described, traits):
            work = partial(visit_counts.add, described=part, now=now, merge=merge, of_links=traits)
            known += await self._writer.run(work, alone=True)
        return known

    async def roll_up_visits(self, *, since: datetime, until: datetime) -> bool:
        return await self._writer.run(lambda db: visit_counts.roll_up(db, since, until), alone=True)

    async def visit_values(
        self, slug: Slug, *, since: datetime, until: datetime, limit: int
    ) -> Sequence[ValueVisits]:
        # A year of all links has a million rows.
        return await self._finder.read(
            lambda db: visit_counts.values(db, slug, since=since, until=until, limit=limit), ADMIN_S
        )

    async def visit_kinds(
        self, slug: Slug, *, starts: Sequence[datetime], until: datetime
    ) -> Sequence[PeriodVisits]:
        return await self._finder.read(
            lambda db: visit_counts.kinds(db, slug, starts=starts, until=until), ADMIN_S
        )

    async def visitor_sketches(self, slug: Slug, *, first: date, last: date) -> Sequence[bytes]:
        return await self._finder.read(
            lambda db: visit_counts.sketches(db, slug, first=first, last=last), ADMIN_S
        )

    async def visitor_key(self, day: date, proposed: bytes) -> bytes:
        return await self._writer.run(lambda db: visit_counts.key(db, day, proposed))

    async def forget_visits(self, *, before: datetime, limit: int) -> int:
        return await self._writer.run(lambda db: visit_counts.forget(db, before, limit))

    async def forget_visitor_keys(self, *, before: date) -> None:
        await self._writer.run(lambda db: visit_counts.forget_keys(db, before))

    async def lease_quota(self, slug: Slug) -> int | None:

        def work(db: apsw.Connection) -> int | None:
            rows = sql.rows(db, sql.QUOTA_TO_LEASE, (slug,))
            visits: int | None = rows[0][0] if rows else 0
            if visits:
                sql.rows(db, sql.TAKE_QUOTA, (slug, visits))
            return visits

        return await self._writer.run(work)

    async def quota_left(self, slug: Slug) -> int | None:
        with translated():
            rows = sql.rows(self._reader, sql.QUOTA_LEFT, (slug,))
        return rows[0][0] if rows else 0

    async def return_quota(self, slug: Slug, visits: int, version: int) -> None:
        await self._writer.run(lambda db: sql.rows(db, sql.RETURN_QUOTA, (slug, visits, version)))

    async def add_key(self, key: ApiKey) -> None:
        values = sql.key_values(key)
        await self._writer.run(lambda db: sql.rows(db, sql.INSERT_KEY, values))

    async def get_key(self, key_id: str) -> ApiKey | None:
        with translated():
            rows = sql.rows(self._reader, sql.SELECT_KEY, (key_id,))
        return sql.key(rows[0]) if rows else None

    async def list_keys(self) -> Sequence[ApiKey]:
        with translated():
            return [sql.key(row) for row in sql.rows(self._reader, sql.SELECT_KEYS)]

    async def revoke_key(self, key_id: str, *, now: datetime) -> bool:
        bindings = (key_id, sql.micros(now))
        return await self._writer.run(lambda db: bool(sql.rows(db, sql.REVOKE_KEY, bindings)))

    async def rotate_key(self, key_id: str, *, old: bytes, new: bytes, old_until: datetime) -> bool:
        bindings = (key_id, old, new, sql.micros(old_until))
        return await self._writer.run(lambda db: bool(sql.rows(db, sql.ROTATE_KEY, bindings)))

    async def note_key_uses(self, uses: Mapping[str, datetime]) -> None:
        bindings = [(key_id, sql.micros(at)) for key_id, at in uses.items()]
        await self._writer.run(lambda db: db.executemany(sql.NOTE_KEY_USE, bindings).fetchall())

    async def add_session(self, session: ConsoleSession, *, keep: int) -> None:
        await self._writer.run(lambda db: session_rows.add(db, session, keep))

    async def get_session(self, id_hash: bytes) -> ConsoleSession | None:
        with translated():
            return session_rows.get(self._reader, id_hash)

    async def list_sessions(self) -> Sequence[ConsoleSession]:
        with translated():
            return session_rows.every(self._reader)

    async def end_session(self, id_hash: bytes) -> bool:
        return await self._writer.run(lambda db: session_rows.end(db, id_hash))

    async def forget_sessions(self, *, before: datetime, limit: int) -> int:
        return await self._writer.run(lambda db: session_rows.forget(db, before, limit))

    async def add_blocks(self, blocks: Sequence[Block], *, now: datetime) -> Sequence[Block]:
        return await self._writer.run(lambda db: block_rows.add(db, blocks, now))

    async def remove_blocks(self, blocks: Sequence[Block]) -> Sequence[Block]:
        return await self._writer.run(lambda db: block_rows.remove(db, blocks))

    async def block_page(self, *, before: int | None, limit: int) -> BlockPage:
        with translated():
            return block_rows.page(self._reader, before, limit)

    async def blocks_version(self) -> int:
        with translated():
            return block_rows.version(self._reader)

    async def blocks_since(self, version: int, *, limit: int) -> Sequence[BlockChange]:
        with translated():
            return block_rows.since(self._reader, version, limit)

    async def domains_version(self) -> int:
        with translated():
            return domain_rows.version(self._reader)

    async def domains(self) -> Sequence[Domain]:
        with translated():
            return domain_rows.every(self._reader)

    async def add_domain(
        self, host: str, settings: DomainSettings, *, case_sensitive: bool, now: datetime
    ) -> Domain | None:
        work = partial(domain_rows.add, host=host, settings=settings, case_sensitive=case_sensitive, now=now)
        return await self._writer.run(work)

    async def change_domain(
        self, domain_id: int, settings: DomainSettings, *, expected_version: int, now: datetime
    ) -> Domain | None:
        work = partial(
            domain_rows.change, domain_id=domain_id, settings=settings, expected=expected_version, now=now
        )
        return await self._writer.run(work)

    async def remove_domain(self, domain_id: int, *, now: datetime) -> bool:
        return await self._writer.run(partial(domain_rows.remove, domain_id=domain_id, now=now))

    async def ping(self) -> None:
        with translated():
            version = self._reader.pragma("user_version")
        if version < latest_version("sqlite"):
            raise Unavailable("sqlite", OLD_SCHEMA)
        await self._writer.check()

    async def try_write(self) -> None:
        await self._writer.try_write()

    async def epoch(self) -> int:
        """Return 0: every cache of an embedded store ends with the process that has the file open."""
        return 0

    async def aclose(self) -> None:
        """Pending writes are finished first."""
        self._reader.close()
        try:
            await self._finder.aclose()
        finally:
            await self._writer.aclose()

    async def _change(
        self,
        slug: Slug,
        expected_version: int | None,
        statement: str,
        values: Mapping[str, Any],
        *,
        external_id: str | None = None,
        takes_removed: bool = False,
    ) -> Changed | VersionMismatch | ExternalIdTaken | None:
        whose = encode_origin(origin())

        def work(db: apsw.Connection) -> Changed | VersionMismatch | ExternalIdTaken | None:
            current = _select_link(db, slug)
            if (
                current is None
                or current.slug != slug
                or (current.removed_at is not None and not takes_removed)
            ):
                return None
            if expected_version is not None and current.version != expected_version:
                return VersionMismatch(current)
            if external_id is not None and (current.removed_at or external_id != current.fields.external_id):
                holder = batches.select_external(db, [external_id]).get(external_id)
                if holder is not None:
                    return ExternalIdTaken(holder)
            changed = _apply(db, slug, statement, values, whose)
            if takes_removed and changed is not None:
                past.mark_undo(db, changed.link)
            return changed

        return await self._writer.run(work)


def _connect(path: Path, busy_timeout_s: float) -> apsw.Connection:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    db.set_busy_timeout(round(busy_timeout_s * 1000))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "full")  # an acknowledged write survives a power cut
    db.pragma("temp_store", "memory")  # the folder of temporary files may be read-only
    return db


def _retagged(tags: list[str], tag: str, new: str | None) -> list[str]:
    if new is None or new in tags:
        return [one for one in tags if one != tag]
    return [new if one == tag else one for one in tags]


def _insert(
    db: apsw.Connection, new: Sequence[NewLink], now: datetime, whose: str | None, maker: str | None
) -> Added:
    created_us = sql.micros(now)
    links: list[Link | None] = []
    events: list[OutboxEvent] = []
    for one in new:
        values = {"slug": one.slug, "now": created_us, "actor": maker, **sql.field_values(one.fields)}
        db.execute(sql.INSERT_LINK, values)
        if db.changes():
            links.append(
                Link(
                    slug=one.slug,
                    fields=one.fields,
                    version=1,
                    created_at=now,
                    updated_at=now,
                    owner=owner_of(maker),
                )
            )
            events.append(_write_event(db, one.slug, 1, whose))
        else:
            links.append(None)
    return Added(tuple(links), tuple(events))


def _apply(
    db: apsw.Connection, slug: Slug, statement: str, values: Mapping[str, Any], whose: str | None
) -> Changed | None:
    db.execute(statement, {"slug": slug, **values})
    link = _select_link(db, slug)
    return None if link is None else Changed(link, _write_event(db, slug, link.version, whose))


def _write_event(db: apsw.Connection, slug: Slug, version: int, whose: str | None) -> OutboxEvent:
    [(event_id,)] = sql.rows(db, sql.INSERT_EVENT, (slug, version, whose))
    return sql.event(event_id, slug, version, whose)


def _select_link(db: apsw.Connection, slug: Slug) -> Link | None:
    rows = sql.rows(db, sql.SELECT_LINK, (slug,))
    return sql.link(rows[0]) if rows else None


def _select_links(db: apsw.Connection, slugs: Sequence[Slug]) -> dict[Slug, Link]:
    return {row[-1]: sql.link(row) for row in sql.rows(db, sql.SELECT_LINKS, (sql.json(slugs),))}
