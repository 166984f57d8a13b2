"""Stories of too many: requests, clients, and one client that asks for twice what it may."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg

from tests.faults.figures import quantile
from tests.faults.flood import Flood, Flooded
from tests.faults.http_client import HttpClient
from tests.faults.journal import Kind, of_kind
from tests.faults.resources import resident_kb
from tests.faults.stage import Stage
from tests.faults.teller import Teller

Figures = Mapping[str, float]

# What `LIMITED` allows one client.
_RATE = 100
LIMITED: Mapping[str, str] = {"HOPGATE_LIMIT_REDIRECT": f"{_RATE}/s burst {_RATE}"}
BEHIND_PROXIES: Mapping[str, str] = {**LIMITED, "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8"}
_FLOOD_S = 12.0


def look_ups_flooded(stage: Stage) -> Figures:
    """
    A closed crowd of 1,024 guesses slugs at one gateway as fast as it can, beside the ordinary load.

    `recovery_s` is how long after the flood the last request of the ordinary load failed.
    """
    load = stage.start_load(visits=60.0, creates=8.0, edits=4.0, warm=50)
    began = time.monotonic()
    time.sleep(3.0)
    gateway = stage.gateways[0]
    with Flood(gateway.url, "guess", _FLOOD_S, connections=1024) as flood:
        unhealthy, asked = 0, 0
        while flood.is_running:
            asked += 1
            unhealthy += not _is_healthy(gateway.url)
            time.sleep(0.2)
        over = time.monotonic()
        came_back = flood.result()
    time.sleep(8.0)
    load.stop()
    ordinary = [op for op in stage.history() if op.intent.sent_at >= began]
    failed = [op for op in ordinary if op.status == 0 or op.status >= 500]
    during = [op for op in ordinary if began + 3.0 <= op.intent.due_at < over]
    visits = [op for op in during if op.intent.kind is Kind.VISIT]
    return {
        "flood_requests": came_back.requests,
        "shed": came_back.shed,
        "without_retry_after": came_back.silent
        + sum(1 for op in failed for reply in op.replies if reply.status == 503 and not reply.retry_after),
        "unhealthy": unhealthy,
        "health_checks": asked,
        "visit_errors": sum(1 for op in visits if op in failed) / len(visits),
        "recovery_s": max([0.0, *(op.intent.due_at - over for op in failed)]),
    }


def scanned_by_many(stage: Stage) -> Figures:
    """
    Five hundred addresses guess slugs at one gateway, 2,000 a second in all, beside the ordinary load.

    None exceeds its limit of unknown slugs. `questions_a_guess` is how many transactions
    PostgreSQL had for each, those of the load and the relay included.
    """
    load = stage.start_load(visits=60.0, creates=8.0, edits=4.0, warm=50)
    time.sleep(3.0)
    gateway = stage.gateways[0]
    [pid] = stage.children(gateway.pid)
    before = _transactions(stage), stage.servers.redis.used_memory(), resident_kb(pid)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        scanning = thread.submit(lambda: asyncio.run(_scan(gateway.port)))
        unhealthy = 0
        while not scanning.done():
            unhealthy += not _is_healthy(gateway.url)
            time.sleep(0.2)
        statuses = scanning.result()
    over = time.monotonic()
    load.stop()
    time.sleep(2.0)  # the server counts once a second
    guesses = sum(statuses.values())
    visits = [op for op in of_kind(stage.history(), Kind.VISIT) if began <= op.intent.due_at < over]
    return {
        "guesses": guesses,
        "guesses_a_second": guesses / (over - began),
        "guesses_shed": statuses[503],
        "guesses_unanswered": statuses[0],
        "questions_a_guess": (_transactions(stage) - before[0]) / guesses,
        "visits": len(visits),
        "visit_errors": sum(1 for op in visits if op.status in (0, 404) or op.status >= 429) / len(visits),
        "visit_p99_s": quantile([op.took_s for op in visits], 0.99),
        "unhealthy": unhealthy,
        "redis_mb": (stage.servers.redis.used_memory() - before[1]) / 2**20,
        "grown_mb": (resident_kb(pid) - before[2]) / 1024,
    }


async def _scan(port: int) -> Counter[int]:
    """Guess for ten seconds, four times a second from each of 500 addresses; return the statuses."""
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


def _transactions(stage: Stage) -> int:
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    return int(row[0]) if row else 0


def shared_limit_lost(stage: Stage) -> Figures:
    """
    One client asks both gateways for twice what it may in all, while Redis forgets, and then dies.

    `*_share` is what it was given over what it may have, in each part; none counts the burst,
    which is used up before.
    """
    with Teller(stage) as tell:
        slug = tell.create()
    parts: dict[str, float] = {}
    with _Client([gateway.port for gateway in stage.gateways], f"/{slug}", 2 * _RATE) as client:
        time.sleep(4.0)
        parts["well_share"] = client.share(5.0)
        stage.servers.redis.flush()
        parts["flushed_share"] = client.share(5.0)
        stage.servers.redis.kill()
        try:
            parts["killed_share"] = client.share(10.0)
        finally:
            stage.servers.redis.start()
        parts["back_share"] = client.share(5.0)
    return parts


def many_clients(stage: Stage) -> Figures:
    """
    A million clients, each with an IPv6 network of its own, ask one gateway for one link.

    Meanwhile one client asks for twice what it may and one for half. The memory is compared
    with that after a flood from a single network: connections and buffers are in both.
    """
    with Teller(stage) as tell:
        slug = tell.create()
    gateway = stage.gateways[0]
    url = f"{gateway.url}/{slug}"
    [pid] = stage.children(gateway.pid)
    _flood(url, "one", 5)
    before_kb = resident_kb(pid)
    requests, limited = 0, 0
    ports = [gateway.port]
    with (
        _Client(ports, f"/{slug}", 2 * _RATE, "198.51.100.7") as greedy,
        _Client(ports, f"/{slug}", _RATE // 2, "198.51.100.8") as modest,
    ):
        time.sleep(2.0)
        greedy.restart()
        for _ in range(10):
            came_back = _flood(url, "spoof", 15)
            requests, limited = requests + came_back.requests, limited + came_back.limited
            if requests >= 1_000_000:
                break
        greedy_share, refused = greedy.so_far(), modest.statuses[429]
    return {
        "clients": requests,
        "clients_refused": limited,
        "grown_mb": (resident_kb(pid) - before_kb) / 1024,
        "greedy_share": greedy_share,
        "modest_refused": refused,
    }


def _flood(url: str, mode: str, seconds: float) -> Flooded:
    with Flood(url, mode, seconds) as flood:  # type: ignore[arg-type]
        return flood.result()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


class _Client:
    """One client that asks at a steady rate, in turn at all *ports*, from a thread of its own."""

    def __init__(self, ports: Sequence[int], path: str, rate: float, address: str | None = None) -> None:
        self._ports = ports
        self._path = path
        self._rate = rate
        self._headers = {} if address is None else {"X-Forwarded-For": address}
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()))
        self.statuses: Counter[int] = Counter()
        self._began = (0.0, 0)

    def __enter__(self) -> _Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def restart(self) -> None:
        """Count from now on."""
        self._began = (time.monotonic(), self.statuses[302])

    def so_far(self) -> float:
        """Return how much of its quota it was given since `restart`."""
        since, given = self._began
        return (self.statuses[302] - given) / (_RATE * (time.monotonic() - since))

    def share(self, seconds: float) -> float:
        """Wait, and return how much of its quota it was given meanwhile."""
        self.restart()
        time.sleep(seconds)
        return self.so_far()

    async def _ask(self) -> None:
        clients = [HttpClient(port, "127.0.0.99") for port in self._ports]
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._over.is_set():
            for client in clients:
                task = asyncio.create_task(self._ask_one(client))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            due += len(clients) / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)
        for client in clients:
            await client.aclose()

    async def _ask_one(self, client: HttpClient) -> None:
        try:
            async with asyncio.timeout(5.0):
                self.statuses[(await client.ask("GET", self._path, headers=self._headers)).status] += 1
        except (OSError, TimeoutError):
            self.statuses[0] += 1
