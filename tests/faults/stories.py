"""
Faults that need their moment: told step by step instead of happening under a load.

Each story takes a stage, leaves it healed, and returns figures of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import psycopg

from app.wire import DEAD_QUEUE
from tests.faults.faults import refused
from tests.faults.journal import Kind, Reply
from tests.faults.observer import make_due, outbox_rows, queue_depths
from tests.faults.stage import Stage
from tests.faults.teller import Teller
from tests.servers.hopgate import eventually
from tests.servers.proxy import GOOD, Network

Figures = Mapping[str, float]


def late_writer(stage: Stage) -> Figures:
    """One gateway's way to Redis is slow: what it writes arrives after what came later."""
    with Teller(stage) as tell:
        for slug in _cached_links(stage, tell, 4):
            assert tell.edit(slug, gateway=0) == 200  # a connection to Redis is open
            time.sleep(0.3)
            # Its caller gives up at once; what it sent is on its way.
            stage.network("redis", Network(latency_s=1.0), party="gateway-0")
            assert tell.edit(slug, gateway=0) == 200
            assert tell.edit(slug, gateway=1) == 200
            time.sleep(1.5)
            stage.network("redis", GOOD, party="gateway-0")
    return {}


def edits_without_caches(stage: Stage) -> Figures:
    """Redis (which keeps its data) and RabbitMQ are away while links are edited and removed."""
    with Teller(stage) as tell:
        slugs = _cached_links(stage, tell, 12)
        with refused("redis")(stage), refused("rabbitmq")(stage):
            for slug in slugs[:8]:
                tell.edit(slug)
            for slug in slugs[8:]:
                tell.remove(slug)
            # Long enough for each writer to have tried, and given up, what it holds in memory.
            time.sleep(5.0)
    return {}


def worker_killed_at_work(stage: Stage) -> Figures:
    """The worker holds events that it cannot apply, as Redis is away, and is killed. Redis has its data."""
    with Teller(stage) as tell:
        slugs = _cached_links(stage, tell, 8)
        with refused("redis")(stage):
            for slug in slugs:
                assert tell.edit(slug) == 200
            time.sleep(1.0)  # the worker has them
            stage.worker.kill()
        stage.worker.start()
    return {}


def late_commit(stage: Stage) -> Figures:
    """A transaction that drew its outbox id early commits after others were relayed."""
    with Teller(stage) as tell:
        slug, *others = _cached_links(stage, tell, 4)
        intent = tell.intent(Kind.EDIT, slug)
        with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as held:
            held.execute(
                "UPDATE links SET long_url = %s, version = version + 1 WHERE slug = %s", (intent.url, slug)
            )
            held.execute("INSERT INTO outbox (slug, version, next_attempt_at) VALUES (%s, 2, now())", (slug,))
            # Only the relay can deliver what the gateways write now.
            for party in ("gateway-0", "gateway-1"):
                stage.network("rabbitmq", Network(refuse=True), party=party)
                stage.proxies[party]["rabbitmq"].reset()
            for other in others:
                assert tell.edit(other) == 200
            _wait_until_quiet(stage, 20)
            held.commit()
        tell.note(intent, Reply(id=intent.id, status=200, at=time.monotonic(), slug=slug, version=2))
        stage.network("rabbitmq", GOOD)
    return {}


def unconfirmed_publish(stage: Stage) -> Figures:
    """
    RabbitMQ takes changes, and confirms them later than anybody waits; all else it answers.

    So no link is given up for being silent. What was published then is in the queue, and comes
    again; what matters is whether the changes after it are confirmed.
    """
    with Teller(stage) as tell:
        slugs = _cached_links(stage, tell, 8)
        stage.network("rabbitmq", Network(late_confirms=True))
        for slug in slugs[:4]:
            assert tell.edit(slug) == 200
        time.sleep(1.0)
        make_due(stage)  # the relay publishes as well
        time.sleep(3.0)  # longer than both wait for a confirm
        stage.network("rabbitmq", GOOD)
        for slug in slugs[4:]:
            assert tell.edit(slug) == 200
    return {}


def outbox_drained(stage: Stage) -> Figures:
    """
    Some thousand changes wait in the outbox when RabbitMQ comes back.

    Five hundred links are made while it is away, and their rows are repeated until there are
    5,000: to the relay each is a change of its own. The rate counts from the first row that leaves.
    """
    url = stage.settings["HOPGATE_DATABASE_URL"]
    with Teller(stage) as tell, psycopg.connect(url, autocommit=True) as connection:

        def waiting() -> int:
            [count] = connection.execute("SELECT count(*) FROM outbox").fetchone() or (0,)
            return int(count)

        with refused("rabbitmq")(stage):
            tell.create_many(500)
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


def _cached_links(stage: Stage, tell: Teller, number: int) -> list[str]:
    slugs = tell.create_many(number)
    for slug in slugs:
        tell.visit(slug)
        tell.visit(slug, gateway=1)
    # Events and fills are applied and acknowledged: one that came again would repair everything.
    _wait_until_quiet(stage, 40)
    time.sleep(2.0)
    return slugs


def _wait_until_quiet(stage: Stage, at_most_s: float) -> None:
    """Wait, but leave the judgement to the ledger: with a bug put in, it may never be quiet."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: _is_quiet(stage), at_most_s)


def _is_quiet(stage: Stage) -> bool:
    depths = queue_depths(stage)
    return outbox_rows(stage) == 0 and not any(depths[name] for name in depths if name != DEAD_QUEUE)
