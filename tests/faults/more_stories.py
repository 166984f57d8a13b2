"""Stories of races, bad messages and too many requests; see `stories.py`."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections import Counter
from collections.abc import Mapping

import psycopg

from app.domain.events import LinkChanged
from app.domain.link import Slug
from app.wire import CACHE_QUEUE, encode_event
from tests.faults.bad_events import POISON, publish
from tests.faults.faults import network, refused, worker_paused
from tests.faults.http_client import HttpClient
from tests.faults.journal import Kind
from tests.faults.observer import cached, outbox_rows, queue_depths, stored
from tests.faults.stage import Stage
from tests.faults.teller import Teller
from tests.servers.hopgate import eventually
from tests.servers.proxy import Network

Figures = Mapping[str, float]

_CROWD = 5000
# Fewer than a gateway's queue of connections that it has not accepted yet.
_CONNECTED_AT_ONCE = 500
# A look-up takes long enough for many to ask meanwhile.
_FAR_AWAY = Network(latency_s=0.02)
# What an idle connection has done is counted by then (PostgreSQL's PGSTAT_IDLE_INTERVAL).
_COUNTED_S = 10.5


def slug_race(stage: Stage) -> Figures:
    """A hundred creators ask for the same slug at once, on both gateways."""
    with Teller(stage) as tell:
        slug = f"race-{random.getrandbits(40):x}"
        done = tell.send([tell.intent(Kind.CREATE, slug, gateway=i % 2) for i in range(100)])
    statuses = Counter(op.status for op in done)
    # Who is told to come back later has been told something true as well.
    return {"created": statuses[201], "taken": statuses[409], "refused": statuses[409] + statuses[503]}


def poisoned_queue(stage: Stage) -> Figures:
    """Unreadable messages stand in the queue before and between good ones."""
    with Teller(stage) as tell:
        publish(stage, POISON)
        stage.poison += len(POISON)
        began = time.monotonic()
        slugs = tell.create_many(20)
        publish(stage, POISON)
        stage.poison += len(POISON)
        eventually(lambda: not queue_depths(stage)[CACHE_QUEUE], 20, "the neighbours are applied")
        took_s = time.monotonic() - began
        missing = set(slugs) - set(cached(stage))
    return {"neighbours_s": took_s, "neighbours_missing": len(missing)}


def crash_loop(stage: Stage) -> Figures:
    """One event kills the worker's process whenever it is met; whoever supervises it starts it again."""
    stage.servers.rabbitmq.ctl(
        *("set_policy", "-p", stage.vhost, "limit", "^hopgate\\.cache$", '{"delivery-limit":10}')
    )
    with Teller(stage) as tell:
        # Gateways write caches as well: only the worker's own writing is of interest.
        stage.servers.redis.flush()
        slugs = tell.create_many(20)
        tell.create(f"crash-{random.getrandbits(40):x}")
        end = time.monotonic() + 90
        starts = 0
        while time.monotonic() < end:
            if not stage.worker.is_alive:
                stage.worker.kill()
                stage.worker.start()
                starts += 1
            depths = queue_depths(stage)
            if depths["hopgate.cache.dead"] and not depths[CACHE_QUEUE]:
                break
            time.sleep(0.5)
        time.sleep(3)
        dead = queue_depths(stage)["hopgate.cache.dead"]
        stage.poison += 1
    return {"starts": starts, "dead": dead, "neighbours_lost": max(0, dead - 1), "links": len(slugs)}


def shuffled_events(stage: Stage) -> Figures:
    """Every event of some links arrives ten times, in any order, with versions old and new."""
    with Teller(stage) as tell:
        slugs = tell.create_many(10)
        for slug in slugs[:6]:
            assert tell.edit(slug) == 200
        for slug in slugs[:2]:
            assert tell.remove(slug) == 204
        events = [LinkChanged(Slug(slug), version) for slug in slugs for version in (1, 2, 3)] * 10
        random.Random(0).shuffle(events)
        publish(stage, [encode_event(event) for event in events])
    return {"events": len(events)}


def no_resurrection(stage: Stage) -> Figures:
    """Late events of a removed link, and somebody who wants its slug."""
    with Teller(stage) as tell:
        slug = tell.create(f"gone-{random.getrandbits(40):x}")
        assert tell.remove(slug) == 204
        publish(stage, [encode_event(LinkChanged(Slug(slug), version)) for version in (2, 1, 1)])
        again = tell.send([tell.intent(Kind.CREATE, slug, gateway=i % 2) for i in range(10)])
        publish(stage, [encode_event(LinkChanged(Slug(slug), 1))])
        eventually(lambda: not queue_depths(stage)[CACHE_QUEUE], 20, "the events are applied")
    return {"recreated": sum(1 for op in again if op.status == 201)}


def hot_miss(stage: Stage) -> Figures:
    """On each gateway five thousand visitors ask at once for a link that nobody has; the first hangs up."""
    with Teller(stage) as tell:
        slug = tell.create()
    eventually(lambda: outbox_rows(stage) == 0, 40, "the outbox is empty")
    # The worker hears of the miss and looks the link up as well, which is not what is counted.
    with refused("redis")(stage), worker_paused(stage), network("postgres", _FAR_AWAY)(stage):
        stage.servers.redis.flush()
        time.sleep(_COUNTED_S)  # first caches have forgotten it as well
        before = _lookups(stage)
        answers = [
            answer
            for gateway in stage.gateways
            for answer in asyncio.run(_crowd(gateway.port, f"/{slug}", _CROWD))
        ]
        time.sleep(_COUNTED_S)
        lookups = _lookups(stage) - before
    return {
        "lookups_a_process": lookups / len(stage.gateways),
        "not_redirected": sum(1 for status, _ in answers if status != 302),
        "different_answers": len(set(answers)),
        "asked": len(answers),
    }


def slug_scan(stage: Stage) -> Figures:
    """One address guesses slugs as fast as it can, while others visit links that exist."""
    with Teller(stage) as tell:
        slugs = tell.create_many(10)
    before, memory = _lookups(stage), stage.servers.redis.used_memory()
    port = stage.gateways[0].port

    async def scan() -> Counter[int]:
        clients = [HttpClient(port, "127.0.0.77") for _ in range(8)]
        statuses: Counter[int] = Counter()

        async def guess(client: HttpClient, numbers: range) -> None:
            for number in numbers:
                statuses[(await client.ask("GET", f"/guess{number:06d}")).status] += 1

        await asyncio.gather(*(guess(client, range(i, 2000, 8)) for i, client in enumerate(clients)))
        return statuses

    statuses = asyncio.run(scan())
    with Teller(stage) as tell:
        others = [tell.visit(slug).status for slug in slugs]
    time.sleep(2.0)  # the server counts once a second
    return {
        "guesses": sum(statuses.values()),
        "guesses_refused": statuses[429],
        "lookups": _lookups(stage) - before,
        "others_refused": sum(1 for status in others if status != 302),
        "redis_bytes": stage.servers.redis.used_memory() - memory,
        "links": len(stored(stage)),
    }


async def _crowd(port: int, path: str, size: int) -> list[tuple[int, str | None]]:
    """Ask for *path* on *size* connections that are open already; return statuses and targets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * size)), hard))
    # From another address: so many connections would take the port of a proxy that listens no more.
    clients = [HttpClient(port, "127.0.0.78") for _ in range(size + 1)]
    for start in range(0, len(clients), _CONNECTED_AT_ONCE):
        await asyncio.gather(*(client.connect() for client in clients[start : start + _CONNECTED_AT_ONCE]))

    async def ask(client: HttpClient) -> tuple[int, str | None]:
        try:
            async with asyncio.timeout(5.0):
                answer = await client.ask("GET", path)
        except (OSError, TimeoutError):
            return 0, None
        return answer.status, answer.headers.get("location")

    first, *others = clients
    begun = asyncio.create_task(ask(first))
    asked = asyncio.gather(*map(ask, others))
    await asyncio.sleep(0)  # each has sent its request
    begun.cancel()
    try:
        return await asked
    finally:
        for client in clients:
            client.reset()


def _lookups(stage: Stage) -> int:
    """How many look-ups the table of links has had, as its server counts them."""
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT idx_scan + seq_scan FROM pg_stat_user_tables WHERE relname = 'links'"
        ).fetchone()
    return int(row[0]) if row else 0
