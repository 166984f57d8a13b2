"""Changes that only the outbox can deliver."""

from __future__ import annotations

import time

import psycopg

from tests.faults.breaks.network import refused
from tests.faults.harness.drill import Figures
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.observer import make_due
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import eventually
from tests.servers.proxy import GOOD, Network


def edits_during_outage(stage: Stage) -> Figures:
    """Links are edited and removed while Redis (with its data) and RabbitMQ are unreachable."""
    with JournaledClient(stage) as client:
        slugs = client.create_cached(12)
        with refused("redis")(stage), refused("rabbitmq")(stage):
            for slug in slugs[:8]:
                client.edit(slug)
            for slug in slugs[8:]:
                client.remove(slug)
            # Until each gateway has given up the deliveries that it holds in memory.
            time.sleep(5.0)
    return {}


def unconfirmed_publish(stage: Stage) -> Figures:
    """
    RabbitMQ accepts changes and confirms them after every publisher timeout; all else works.

    Heartbeats pass, so connections stay open. The late changes are queued and published again;
    the story tests whether later changes are confirmed.
    """
    with JournaledClient(stage) as client:
        slugs = client.create_cached(8)
        stage.network("rabbitmq", Network(late_confirms=True))
        for slug in slugs[:4]:
            assert client.edit(slug) == 200
        time.sleep(1.0)
        make_due(stage)  # so the relay publishes too
        time.sleep(3.0)  # longer than any wait for a confirm
        stage.network("rabbitmq", GOOD)
        for slug in slugs[4:]:
            assert client.edit(slug) == 200
    return {}


def backlog_drained(stage: Stage) -> Figures:
    """
    5,000 changes wait in the outbox when RabbitMQ returns.

    500 links are created during the outage, and their rows are copied nine times: the relay treats
    each row as a change. The rate counts from the first row that leaves.
    """
    url = stage.settings["HOPGATE_DATABASE_URL"]
    with JournaledClient(stage) as client, psycopg.connect(url, autocommit=True) as connection:

        def waiting() -> int:
            [count] = connection.execute("SELECT count(*) FROM outbox").fetchone() or (0,)
            return int(count)

        with refused("rabbitmq")(stage):
            client.create_many(500)
            connection.execute(
                "INSERT INTO outbox (slug, version, next_attempt_at)"
                " SELECT slug, version, now() FROM outbox, generate_series(1, 9)"
            )
            make_due(stage)
            rows = waiting()
        healed = time.monotonic()
        eventually(lambda: waiting() < rows, 30, "the relay publishes again")
        first, left = time.monotonic(), waiting()
        eventually(lambda: waiting() == 0, 60, "the outbox is empty")
        last = time.monotonic()
    return {"rows": rows, "confirmed_s": first - healed, "drained_a_second": left / (last - first)}
