"""Too many requests: look-ups, guessed slugs and concurrent misses."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.faults.breaks.network import degraded, refused
from tests.faults.breaks.process import worker_paused
from tests.faults.harness.drill import Figures
from tests.faults.harness.figures import quantile
from tests.faults.harness.flood import Flood
from tests.faults.harness.http_client import HttpClient
from tests.faults.harness.journal import Kind, of_kind
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.observer import lookups, outbox_rows, stored, transactions
from tests.faults.harness.resources import is_healthy, resident_kb
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import eventually
from tests.servers.proxy import Network

_VISITORS = 5000


# Fewer than the listen backlog of a gateway.
_CONNECTED_AT_ONCE = 500


# Makes a look-up slow enough for the others to arrive meanwhile.
_FAR_AWAY = Network(latency_s=0.02)


# PostgreSQL flushes the statistics of an idle connection within PGSTAT_IDLE_INTERVAL, 10 s.
_COUNTED_S = 10.5


_FLOOD_S = 12.0


def lookup_flood(stage: Stage) -> Figures:
    """
    A closed loop of 1,024 connections guesses slugs at one gateway, beside the ordinary load.

    `recovery_s` is the time from the end of the flood to the last failed request of the load.
    """
    load = stage.start_load(visits=60.0, creates=8.0, edits=4.0, warm=50)
    began = time.monotonic()
    time.sleep(3.0)
    gateway = stage.gateways[0]
    with Flood(gateway.url, "guess", _FLOOD_S, connections=1024) as flood:
        unhealthy, asked = 0, 0
        while flood.is_running:
            asked += 1
            unhealthy += not is_healthy(gateway.url)
            time.sleep(0.2)
        over = time.monotonic()
        flooded = flood.result()
    time.sleep(8.0)
    load.stop()
    ordinary = [op for op in stage.history() if op.intent.sent_at >= began]
    failed = [op for op in ordinary if op.status == 0 or op.status >= 500]
    during = [op for op in ordinary if began + 3.0 <= op.intent.due_at < over]
    visits = [op for op in during if op.intent.kind is Kind.VISIT]
    return {
        "flood_requests": flooded.requests,
        "shed": flooded.shed,
        "without_retry_after": flooded.silent
        + sum(1 for op in failed for reply in op.replies if reply.status == 503 and not reply.retry_after),
        "unhealthy": unhealthy,
        "health_checks": asked,
        "visit_errors": sum(1 for op in visits if op in failed) / len(visits),
        "recovery_s": max([0.0, *(op.intent.due_at - over for op in failed)]),
    }


def distributed_scan(stage: Stage) -> Figures:
    """
    500 addresses guess slugs at one gateway, 2,000 a second in all, beside the ordinary load.

    No address exceeds its limit for unknown slugs. `questions_a_guess` is the number of
    transactions in PostgreSQL per guess, including those of the load and the relay.
    """
    load = stage.start_load(visits=60.0, creates=8.0, edits=4.0, warm=50)
    time.sleep(3.0)
    gateway = stage.gateways[0]
    [pid] = stage.children(gateway.pid)
    before = transactions(stage), stage.servers.redis.used_memory(), resident_kb(pid)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        scanning = thread.submit(lambda: asyncio.run(_scan(gateway.port)))
        unhealthy = 0
        while not scanning.done():
            unhealthy += not is_healthy(gateway.url)
            time.sleep(0.2)
        statuses = scanning.result()
    over = time.monotonic()
    load.stop()
    time.sleep(2.0)  # PostgreSQL flushes its statistics once a second
    guesses = sum(statuses.values())
    visits = [op for op in of_kind(stage.history(), Kind.VISIT) if began <= op.intent.due_at < over]
    return {
        "guesses": guesses,
        "guesses_a_second": guesses / (over - began),
        "guesses_shed": statuses[503],
        "guesses_unanswered": statuses[0],
        "questions_a_guess": (transactions(stage) - before[0]) / guesses,
        "visits": len(visits),
        "visit_errors": sum(1 for op in visits if op.status in (0, 404) or op.status >= 429) / len(visits),
        "visit_p99_s": quantile([op.took_s for op in visits], 0.99),
        "unhealthy": unhealthy,
        "redis_mb": (stage.servers.redis.used_memory() - before[1]) / 2**20,
        "grown_mb": (resident_kb(pid) - before[2]) / 1024,
    }


def concurrent_misses(stage: Stage) -> Figures:
    """5,000 visitors on each gateway request one uncached link at once; the first one disconnects."""
    with JournaledClient(stage) as client:
        slug = client.create()
    eventually(lambda: outbox_rows(stage) == 0, 40, "the outbox is empty")
    # The worker receives the miss and looks the link up too, which must not be counted.
    with refused("redis")(stage), worker_paused(stage), degraded("postgres", _FAR_AWAY)(stage):
        stage.servers.redis.flush()
        time.sleep(_COUNTED_S)  # entries of L1 caches have expired too
        before = lookups(stage)
        answers = [
            answer
            for gateway in stage.gateways
            for answer in asyncio.run(_ask_at_once(gateway.port, f"/{slug}", _VISITORS))
        ]
        time.sleep(_COUNTED_S)
        found = lookups(stage) - before
    return {
        "lookups_a_process": found / len(stage.gateways),
        "not_redirected": sum(1 for status, _ in answers if status != 302),
        "different_answers": len(set(answers)),
        "asked": len(answers),
    }


def slug_scan(stage: Stage) -> Figures:
    """One address guesses slugs as fast as possible, while other clients visit existing links."""
    with JournaledClient(stage) as client:
        slugs = client.create_many(10)
    before, memory = lookups(stage), stage.servers.redis.used_memory()
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
    with JournaledClient(stage) as client:
        others = [client.visit(slug).status for slug in slugs]
    time.sleep(2.0)  # PostgreSQL flushes its statistics once a second
    return {
        "guesses": sum(statuses.values()),
        "guesses_refused": statuses[429],
        "lookups": lookups(stage) - before,
        "others_refused": sum(1 for status in others if status != 302),
        "redis_bytes": stage.servers.redis.used_memory() - memory,
        "links": len(stored(stage)),
    }


async def _scan(port: int) -> Counter[int]:
    """Guess for ten seconds, four times a second from each of 500 addresses; count the statuses."""
    statuses: Counter[int] = Counter()
    began = time.monotonic()

    async def guess(number: int) -> None:
        client = HttpClient(port, f"127.0.{1 + number // 250}.{1 + number % 250}")
        for turn in range(40):
            due = began + (turn + number / 500) / 4
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                async with asyncio.timeout(5.0):
                    answer = await client.ask("GET", f"/g{number:03d}x{turn:02d}z")
                statuses[answer.status] += 1
            except (OSError, TimeoutError):
                statuses[0] += 1
        await client.aclose()

    await asyncio.gather(*map(guess, range(500)))
    return statuses


async def _ask_at_once(port: int, path: str, size: int) -> list[tuple[int, str | None]]:
    """Request *path* on *size* connections opened before; return statuses and targets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * size)), hard))
    # From another address: so many connections could take the port of a proxy that refuses.
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
    await asyncio.sleep(0)  # each task has sent its request
    begun.cancel()
    try:
        return await asked
    finally:
        for client in clients:
            client.reset()
