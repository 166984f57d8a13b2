"""A PostgreSQL replica that lags, then dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psycopg

from tests.faults.breaks.process import worker_paused
from tests.faults.breaks.redis import full
from tests.faults.harness.drill import Figures
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.reconfigured import running_with
from tests.faults.harness.stage import Stage
from tests.servers.postgres import PostgresReplica


def lagging_replica(stage: Stage) -> Figures:
    """
    A replica lags by seconds, then by half a minute, then dies.

    Redis is full and the worker is paused, so only the primary has the changes, and a gateway
    knows the minimum versions of its own changes only.
    """
    url = stage.settings["HOPGATE_DATABASE_URL"]
    primary = stage.servers.postgres
    with ExitStack() as stack:
        replica = stack.enter_context(PostgresReplica(primary))
        there = url.replace(f":{primary.port}", f":{replica.port}")
        stack.enter_context(running_with(stage, HOPGATE_DATABASE_REPLICA_URLS=there))
        client = stack.enter_context(JournaledClient(stage))
        stack.enter_context(full(stage))
        stack.enter_context(worker_paused(stage))
        seen: list[int] = []
        old = [0]

        def go_on(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                slug = client.create()
                seen.extend(client.visit(slug, gateway=gateway).status for gateway in (0, 1))
                client.edit(slug)
                answer = client.visit(slug)
                old[0] += answer.reply is None or answer.reply.location != _target(stage, slug)

        for _ in range(4):
            with _replay_paused(replica):
                go_on(4.0)
            go_on(1.5)
        asked = _look_ups(stage, "replica")
        with _replay_paused(replica):
            go_on(30.0)
        replica.kill()
        go_on(5.0)
        return {
            "visits": len(seen),
            "not_found": seen.count(404),
            "failed": sum(1 for status in seen if status != 302),
            "own_edits_missed": old[0],
            "answered_by_replica": asked,
        }


def _target(stage: Stage, slug: str) -> str:
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        row = connection.execute("SELECT long_url FROM links WHERE slug = %s", (slug,)).fetchone()
    assert row is not None
    return str(row[0])


@contextmanager
def _replay_paused(replica: PostgresReplica) -> Iterator[None]:
    with psycopg.connect(replica.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
        yield
        connection.execute("SELECT pg_wal_replay_resume()")


def _look_ups(stage: Stage, source: str) -> float:
    line = f'hopgate_look_ups_total{{source="{source}"}} '
    texts = [httpx.get(f"{gateway.url}/metrics", timeout=5).text for gateway in stage.gateways]
    return sum(
        float(found.removeprefix(line)) for text in texts for found in text.splitlines() if line in found
    )
