"""Reads the state of a stage from its servers, and waits until it is quiescent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import psycopg
import redis

from app.adapters.postgres import sql
from app.adapters.rabbitmq.bus import RabbitBus
from app.domain.errors import Unavailable
from app.domain.link import Link, Resolution, Slug
from app.wire import DEAD_QUEUE, cache_key, decode_resolution
from tests.faults.harness.http_client import HttpClient
from tests.faults.harness.journal import Kind, of_kind
from tests.faults.harness.ledger import (
    FinalState,
    Shown,
    Violation,
    violations_at_the_end,
    violations_on_the_way,
)
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import eventually

# The L1 cache of a gateway serves an entry for two seconds at most.
_L1_CACHE_S = 2.1
_PREFIX, _SUFFIX = (part.encode() for part in cache_key(Slug("|")).split("|"))


def stored(stage: Stage) -> dict[str, Link]:
    """Return every link in PostgreSQL, removed ones included."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"], options="-c timezone=UTC") as connection:
        rows = connection.execute(f"SELECT {sql.LINK} FROM links".encode()).fetchall()
    links = [sql.link(row) for row in rows]
    return {link.slug: link for link in links}


def outbox_rows(stage: Stage) -> int:
    """Return the number of rows in the outbox."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM outbox").fetchone()
    return int(row[0]) if row else 0


def make_due(stage: Stage) -> None:
    """Make every outbox row due now, leased ones included."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        connection.execute(
            "UPDATE outbox SET next_attempt_at = now()"
            " WHERE id IN (SELECT id FROM outbox FOR UPDATE SKIP LOCKED)"
        )


def cached(stage: Stage) -> dict[str, Resolution]:
    """Return every cached entry in Redis; an unreadable one has the version -1."""
    found = {}
    with redis.Redis(port=stage.servers.redis.port, socket_timeout=10) as client:
        keys = list(client.scan_iter(match=_glob(_PREFIX) + b"*" + _glob(_SUFFIX), count=1000))
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            for key, value in zip(some, client.mget(some), strict=True):
                slug = Slug(key[len(_PREFIX) : -len(_SUFFIX)].decode())
                if value is not None:  # else it expired after the scan
                    found[slug] = decode_resolution(slug, value) or Resolution(slug, -1)
    return {str(slug): resolution for slug, resolution in found.items()}


def queue_depths(stage: Stage) -> Mapping[str, int]:
    """Return the number of ready messages of each queue."""

    async def ask() -> Mapping[str, int]:
        bus = RabbitBus(stage.settings["HOPGATE_AMQP_URL"])
        bus.start()
        try:
            async with asyncio.timeout(30):
                while True:
                    try:
                        return await bus.depths()
                    except Unavailable:  # not connected yet
                        await asyncio.sleep(0.05)
        finally:
            await bus.aclose()

    return asyncio.run(ask())


def shown(stage: Stage, slugs: Sequence[str]) -> dict[str, dict[str, Shown]]:
    """Visit *slugs* on every gateway and return the responses."""

    async def ask_one(client: HttpClient, slug: str) -> Shown:
        began = time.monotonic()
        try:
            async with asyncio.timeout(5):
                answer = await client.ask("GET", f"/{quote(slug)}")
        except (OSError, TimeoutError) as error:
            return Shown(0, why=repr(error))
        why = ""
        if answer.status >= 500:
            why = f"{answer.body.decode(errors='replace')} after {time.monotonic() - began:.2f} s"
        return Shown(answer.status, answer.headers.get("location"), why)

    async def ask(port: int) -> dict[str, Shown]:
        client = HttpClient(port)
        answers = {slug: await ask_one(client, slug) for slug in slugs}
        await client.aclose()
        return answers

    async def ask_all() -> dict[str, dict[str, Shown]]:
        ports = [gateway.port for gateway in stage.gateways]
        answers = await asyncio.gather(*map(ask, ports))
        return {f"gateway {port}": found for port, found in zip(ports, answers, strict=True)}

    return asyncio.run(ask_all())


def final_state(stage: Stage, *, ask: Sequence[str] = ()) -> FinalState:
    """Read the state of all servers, and visit the slugs *ask* on every gateway."""
    links = stored(stage)
    depths = dict(queue_depths(stage))
    dead = depths.pop(DEAD_QUEUE, 0)
    return FinalState(
        links=links,
        cached=cached(stage),
        outbox=outbox_rows(stage),
        waiting=sum(depths.values()),
        dead=dead,
        shown=shown(stage, [slug for slug in ask if slug in links]) if ask else {},
    )


def settle(stage: Stage, *, within_s: float = 60.0, hurry: bool = False) -> tuple[list[Violation], float]:
    """
    Wait until the ledger holds, for *within_s* at most; return the violations and the seconds it took.

    Gateways are visited last: a visit repairs an outdated cache entry, and entries that were
    not visited must be right too. With *hurry*, every outbox row is due now.
    """
    history = stage.history()
    began = time.monotonic()
    while True:
        is_over = time.monotonic() - began > within_s
        if hurry:
            make_due(stage)
        # Reading the rest is expensive, and pointless while the outbox holds rows.
        if is_over or outbox_rows(stage) == 0:
            left = violations_at_the_end(history, final_state(stage), poison=stage.poison)
            if not left or is_over:
                break
        time.sleep(0.5)
    took_s = time.monotonic() - began
    created = {op.slug for op in of_kind(history, Kind.CREATE) if op.slug is not None}
    time.sleep(_L1_CACHE_S)
    final = final_state(stage, ask=sorted(created))
    # Violations found before the visits count, even if a visit has repaired them.
    left = [*left, *violations_at_the_end(history, final, poison=stage.poison)]
    return [*violations_on_the_way(history), *dict.fromkeys(left)], took_s


def wait_until_quiet(stage: Stage, at_most_s: float) -> None:
    """Wait until outbox and queues are empty. A timeout is no error: the ledger decides."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: _is_quiet(stage), at_most_s)


def _is_quiet(stage: Stage) -> bool:
    depths = queue_depths(stage)
    return outbox_rows(stage) == 0 and not any(depths[name] for name in depths if name != DEAD_QUEUE)


def lookups(stage: Stage) -> int:
    """Return the number of scans of the table `links`, as PostgreSQL counts them."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT idx_scan + seq_scan FROM pg_stat_user_tables WHERE relname = 'links'"
        ).fetchone()
    return int(row[0]) if row else 0


def transactions(stage: Stage) -> int:
    """Return the number of transactions in this database, as PostgreSQL counts them."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    return int(row[0]) if row else 0


def _glob(text: bytes) -> bytes:
    return text.replace(b"[", b"\\[")
