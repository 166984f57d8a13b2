"""Rate limits under failures of Redis and with a million clients."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from tests.faults.harness.drill import Figures
from tests.faults.harness.flood import Flood, Flooded
from tests.faults.harness.http_client import HttpClient
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.resources import resident_kb
from tests.faults.harness.stage import Stage

# Requests a second that `LIMITED` allows one client.
_RATE = 100


LIMITED: Mapping[str, str] = {"HOPGATE_LIMIT_REDIRECT": f"{_RATE}/s burst {_RATE}"}


BEHIND_PROXIES: Mapping[str, str] = {**LIMITED, "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8"}


def shared_limit_lost(stage: Stage) -> Figures:
    """
    One client sends twice its shared rate to both gateways, while Redis is flushed, then killed.

    `*_share` is the admitted rate over the limit in each phase, without the burst, which is
    used up before.
    """
    with JournaledClient(stage) as client:
        slug = client.create()
    parts: dict[str, float] = {}
    with _SteadyClient([gateway.port for gateway in stage.gateways], f"/{slug}", 2 * _RATE) as client:
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
    A million clients, each with its own IPv6 network, request one link from one gateway.

    Meanwhile one client sends twice its limit and one half of it. `grown_mb` compares with the
    memory after a flood from a single network, which includes connections and buffers.
    """
    with JournaledClient(stage) as client:
        slug = client.create()
    gateway = stage.gateways[0]
    url = f"{gateway.url}/{slug}"
    [pid] = stage.children(gateway.pid)
    _flood(url, "one", 5)
    before_kb = resident_kb(pid)
    requests, limited = 0, 0
    ports = [gateway.port]
    with (
        _SteadyClient(ports, f"/{slug}", 2 * _RATE, "198.51.100.7") as greedy,
        _SteadyClient(ports, f"/{slug}", _RATE // 2, "198.51.100.8") as modest,
    ):
        time.sleep(2.0)
        greedy.restart()
        for _ in range(10):
            flooded = _flood(url, "spoof", 15)
            requests, limited = requests + flooded.requests, limited + flooded.limited
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


class _SteadyClient:
    """One client with a steady rate, round robin over *ports*, in a thread."""

    def __init__(self, ports: Sequence[int], path: str, rate: float, address: str | None = None) -> None:
        self._ports = ports
        self._path = path
        self._rate = rate
        self._headers = {} if address is None else {"X-Forwarded-For": address}
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()))
        self.statuses: Counter[int] = Counter()
        self._began = (0.0, 0)

    def __enter__(self) -> _SteadyClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def restart(self) -> None:
        """Restart the count."""
        self._began = (time.monotonic(), self.statuses[302])

    def so_far(self) -> float:
        """Return the admitted rate over the limit since `restart`."""
        since, given = self._began
        return (self.statuses[302] - given) / (_RATE * (time.monotonic() - since))

    def share(self, seconds: float) -> float:
        """Wait, and return the admitted rate over the limit meanwhile."""
        self.restart()
        time.sleep(seconds)
        return self.so_far()

    async def _send(self) -> None:
        clients = [HttpClient(port, "127.0.0.99") for port in self._ports]
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._over.is_set():
            for client in clients:
                task = asyncio.create_task(self._send_one(client))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            due += len(clients) / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)
        for client in clients:
            await client.aclose()

    async def _send_one(self, client: HttpClient) -> None:
        try:
            async with asyncio.timeout(5.0):
                self.statuses[(await client.ask("GET", self._path, headers=self._headers)).status] += 1
        except (OSError, TimeoutError):
            self.statuses[0] += 1
