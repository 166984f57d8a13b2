"""
A load in an open loop: each request goes out when it is due, whatever became of those before.

Usage: python -m bench.open_loop PLAN ANSWERS, two files; see `Plan` and `read`.

h2load and wrk ask again on a connection when it was answered, so a server that slows down slows
them down; and all connections of h2load go through a list in step, so most would be answered from
memory. Here a request that finds no idle connection opens another one, and time counts from when a
request was due.
"""

from __future__ import annotations

import array
import asyncio
import gc
import itertools
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.load import Seen

_TICK_S = 0.001
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
# For those who never answer.
_PATIENCE_S = 5.0


class Plan(msgspec.Struct, frozen=True):
    """
    What to ask for.

    Args:
        paths: a file of paths, one a line, asked for one after the other and from the start again.
        key: an API key, for creates.
        create_every: each so-many-th request creates a link.
        connections: how many there may be; a request that finds none idle then is not sent.
        phases: rates in requests a second, and how many seconds each lasts.
    """

    port: int
    paths: str
    key: str
    create_every: int
    connections: int
    phases: list[tuple[float, float]]


def read(file: Path) -> list[Seen]:
    """
    Return what was written to ANSWERS, one for each request that was due.

    Times are unix time and since the request was due; status 0: the connection broke or nothing
    came, -1: it was not sent.
    """
    numbers = array.array("q", file.read_bytes())
    return list(map(Seen, numbers[::3], numbers[1::3], numbers[2::3]))


class _Connection(asyncio.Protocol):
    """One connection, which has one request under way or is idle."""

    def __init__(self, client: _Client, request: bytes, due: float) -> None:
        self._client = client
        self._request, self._due = request, due
        self._is_new = True
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def ask(self, request: bytes, due: float) -> None:
        self._request, self._due, self._is_new = request, due, False
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(received, 0, end)
        if len(received) < end + 4 + (int(length[1]) if length else 0):
            return
        self._received = b""
        self._client.note(self._due, int(received[9:12]))
        self._due = 0.0
        self._client.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.closed(self)
        if not self._due:
            return
        if self._is_new or self._received:
            self._client.note(self._due, 0)
        else:  # it was idle too long and closed while this was on its way: clients ask again then
            self._client.send(self._request, self._due)


class _Client:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._wall = time.time() - self._loop.time()
        self._opened = 0
        self.idle: list[_Connection] = []
        self.under_way = 0
        self.answers = array.array("q")

    async def run(self) -> None:
        requests = _requests(self._plan)
        schedule = _schedule(self._plan, self._loop.time() + 0.1)
        due = next(schedule, None)
        while due is not None:
            now = self._loop.time()
            while due is not None and due <= now:
                self.under_way += 1
                self.send(next(requests), due)
                due = next(schedule, None)
            await asyncio.sleep(_TICK_S)
        for _ in range(round(_PATIENCE_S / _TICK_S)):
            if self.under_way:
                await asyncio.sleep(_TICK_S)

    def send(self, request: bytes, due: float) -> None:
        if self.idle:
            self.idle.pop().ask(request, due)
        elif self._opened < self._plan.connections:
            self._opened += 1
            self._loop.create_task(self._open(request, due))
        else:
            self.note(due, -1)

    async def _open(self, request: bytes, due: float) -> None:
        try:
            await self._loop.create_connection(
                lambda: _Connection(self, request, due), "127.0.0.1", self._plan.port
            )
        except OSError:
            self._opened -= 1
            self.note(due, 0)

    def note(self, due: float, status: int) -> None:
        self.under_way -= 1
        took_s = self._loop.time() - due
        self.answers.extend((round((due + self._wall) * 1e6), status, round(took_s * 1e6)))

    def closed(self, connection: _Connection) -> None:
        self._opened -= 1
        if connection in self.idle:
            self.idle.remove(connection)


def _schedule(plan: Plan, begin: float) -> Iterator[float]:
    """Give when each request is due, on the loop's clock."""
    for rate, seconds in plan.phases:
        for number in range(round(rate * seconds)):
            yield begin + number / rate
        begin += seconds


def _requests(plan: Plan) -> Iterator[bytes]:
    paths = Path(plan.paths).read_text().split()
    visits = itertools.cycle([f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode() for path in paths])
    body = '{"long_url":"https://example.com/written"}'
    create = (
        f"POST /api/v1/links HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {plan.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    for number in itertools.count(1):
        yield next(visits) if number % plan.create_every else create


async def _answers(plan: Plan) -> bytes:
    client = _Client(plan)
    await client.run()
    return client.answers.tobytes()


if __name__ == "__main__":
    gc.disable()  # nothing here is a cycle that matters, and a pause would make requests late
    planned = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    Path(sys.argv[2]).write_bytes(uvloop.run(_answers(planned)))
