"""Standbys of PostgreSQL: a synchronous one that stalls, an asynchronous one that takes over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psycopg

from tests.faults.harness import drill
from tests.faults.harness.drill import FULL_LOAD, Figures, Timing
from tests.faults.harness.journal import Kind, of_kind
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.observer import cached, settle
from tests.faults.harness.servers import Servers
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import eventually
from tests.servers.postgres import PostgresReplica, PrivatePostgres

_OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hopgate'"
_LAG = "SELECT pg_current_wal_lsn() - replay_lsn, sync_state FROM pg_stat_replication"
_LOST = "https://example.com/lost"


def synchronous_standby_stalls(stage: Stage) -> Figures:
    """It is stopped (SIGSTOP) for 30 s under 30 creates a second: no commit is acknowledged meanwhile."""
    sessions: list[int] = []
    with ExitStack() as stack:
        standby = stack.enter_context(PostgresReplica(stage.servers.postgres))
        stack.enter_context(_synchronous(stage.servers.postgres))

        @contextmanager
        def fault(stage: Stage) -> Iterator[None]:
            standby.pause()
            try:
                with _counted(stage.servers.postgres, sessions):
                    yield
            finally:
                standby.resume()

        load = {**FULL_LOAD, "creates": 30.0}
        outcomes = drill.run(stage, fault, Timing(during_s=30.0), **load)
    return {**outcomes.figures, "violations": len(outcomes.violations), "sessions": max(sessions)}


@contextmanager
def _synchronous(primary: PrivatePostgres) -> Iterator[None]:
    with psycopg.connect(primary.url(), autocommit=True) as connection:

        def is_synchronous() -> bool:
            return any(row[1] == "sync" for row in connection.execute(_LAG))

        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        try:
            eventually(is_synchronous, 10, "the standby is synchronous")
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def _counted(primary: PrivatePostgres, found: list[int]) -> Iterator[None]:
    """Count the sessions of Hopgate several times a second."""
    over = threading.Event()

    def count() -> None:
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            while not over.wait(0.2):
                found.extend(row[0] for row in connection.execute(_OURS))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def lagging_standby_takes_over(stage: Stage) -> Figures:
    """
    The primary dies with changes that its asynchronous standby lacks, and the standby is promoted.

    It has servers of its own, as the primary stays dead. The lost changes are not in the journal.
    """
    with ExitStack() as stack:
        servers = stack.enter_context(Servers())
        directory = stage.directory / f"failover-{time.monotonic_ns()}"
        directory.mkdir()
        inner = stack.enter_context(Stage(servers, directory))
        standby = stack.enter_context(PostgresReplica(servers.postgres))
        database = inner.settings["HOPGATE_DATABASE_URL"].rpartition("/")[2]
        ports = (servers.postgres.port, standby.port)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        for process in (*inner.gateways, inner.worker):
            process.stop()
            process._settings["HOPGATE_DATABASE_URL"] = f"postgresql://postgres@{hosts}/{database}"
            process.start()
        client = stack.enter_context(JournaledClient(inner))
        slugs = client.create_cached(30)
        true = dict.fromkeys(slugs, f"https://example.com/{client._name}-")
        load = inner.start_load(visits=200.0, creates=0.0, edits=0.0, deletes=0.0)
        eventually(lambda: _has_replayed(servers.postgres), 10, "the standby has everything")
        standby.stop()
        _lose_changes(inner, slugs)
        servers.postgres.kill()
        standby.start()
        standby.promote()
        promoted = time.monotonic()
        eventually(lambda: _shows(inner, true), 60, "every gateway shows what the new primary has")
        truth_s = time.monotonic() - promoted
        time.sleep(max(0.0, 6.0 - truth_s))
        load.stop()
        inner.settings["HOPGATE_DATABASE_URL"] = standby.url(database)
        found, drain_s = settle(inner)
        late = [op for op in of_kind(inner.history(), Kind.VISIT) if op.intent.due_at > promoted + 3]
        return {
            "truth_s": truth_s,
            "violations": len(found),
            "drain_s": drain_s,
            "late_visits": len(late),
            "visit_errors_late": sum(1 for op in late if op.status == 0 or op.status >= 500),
        }


def _lose_changes(stage: Stage, slugs: list[str]) -> None:
    """Edit two thirds of *slugs* and remove the others, until Redis and both gateways show it."""
    headers = {"Authorization": f"Bearer {stage.api_keys[0]}"}
    removed = set(slugs[::3])
    with httpx.Client(base_url=stage.gateways[0].url, headers=headers, timeout=10) as api:
        for slug in slugs:
            path = f"/api/v1/links/{slug}"
            answer = api.delete(path) if slug in removed else api.patch(path, json={"long_url": _LOST})
            assert answer.status_code in {200, 204}, answer.text
    eventually(lambda: all(cached(stage)[slug].version == 2 for slug in slugs), 10, "Redis has the changes")
    lost = {slug: "" if slug in removed else _LOST for slug in slugs}
    eventually(lambda: _shows(stage, lost), 10, "gateways show the changes")


def _shows(stage: Stage, expected: dict[str, str]) -> bool:
    """Do all gateways redirect to a target that begins as *expected*; empty: is the link gone?"""
    for gateway in stage.gateways:
        with httpx.Client(base_url=gateway.url, timeout=5) as client:
            for slug, url in expected.items():
                answer = client.get(f"/{slug}")
                if url and not answer.headers.get("location", "").startswith(url):
                    return False
                if not url and answer.status_code != 410:
                    return False
    return True


def _has_replayed(primary: PrivatePostgres) -> bool:
    with psycopg.connect(primary.url(), autocommit=True) as connection:
        return [row[0] for row in connection.execute(_LAG)] == [0]
