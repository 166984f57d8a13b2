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
import contextlib
import gc
import itertools
import math
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.load import Seen

_TICK_S = 0.001
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
# For those who never answer.
_PATIENCE_S = 5.0
_ALIVE = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"


class Plan(msgspec.Struct, frozen=True):
    """
    What to ask for.

    Args:
        paths: a file of paths, one a line, asked for one after the other and from the start again.
        key: an API key, for creates.
        create_every: each so-many-th request creates a link.
        opened: how many connections are open before the first request is due.
        connections: how many there may be; a request that finds none idle then is not sent.
        phases: rates in requests a second, and how many seconds each lasts.
    """

    port: int
    paths: str
    key: str
    create_every: int
    opened: int
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


class _Connection:
    """One connection, which has one request under way or, with no `due`, is idle."""

    __slots__ = ("due", "is_closed", "is_new", "received", "request", "socket")

    def __init__(self, opened: socket.socket, request: bytes, due: float) -> None:
        self.socket = opened
        self.request = request
        self.due = due
        self.received = b""
        self.is_new = True
        self.is_closed = False


class _Client:
    """
    Sends and receives on plain sockets.

    On an event loop a request costs 75 µs: at ten thousand a second the load would take the
    processor from the PostgreSQL that it shares it with, and measure its own lateness.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._wall = time.time() - time.monotonic()
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        # In turn, as a server closes what it has not heard from for long.
        self._idle: deque[_Connection] = deque()
        self._under_way = 0
        self.answers = array.array("q")

    def open(self) -> None:
        """Open connections, and wait until the server has answered on each."""
        now = time.monotonic()
        for _ in range(self._plan.opened):
            self._under_way += 1
            self._send(_ALIVE, now)
        while self._under_way and time.monotonic() < now + _PATIENCE_S:
            self._poll_once()
        self.answers = array.array("q")

    def run(self) -> None:
        """Ask for everything when it is due."""
        requests = _requests(self._plan)
        schedule = _schedule(self._plan, time.monotonic() + 0.1)
        due = next(schedule, None)
        given_up_at = math.inf
        while (now := time.monotonic()) < given_up_at and (due is not None or self._under_way):
            while due is not None and due <= now:
                self._under_way += 1
                self._send(next(requests), due)
                due = next(schedule, None)
            if due is None:
                given_up_at = min(given_up_at, now + _PATIENCE_S)
            self._poll_once()
        for connection in self._open.values():
            if connection.due:
                self._note(connection.due, 0)

    def _poll_once(self) -> None:
        for descriptor, event in self._poll.poll(_TICK_S):
            self._on_event(self._open[descriptor], event)

    def _send(self, request: bytes, due: float) -> None:
        while self._idle:
            connection = self._idle.popleft()
            if not connection.is_closed:
                connection.request, connection.due, connection.is_new = request, due, False
                with contextlib.suppress(OSError):  # its end is about to be seen
                    connection.socket.send(request)
                return
        if len(self._open) >= self._plan.connections:
            self._note(due, -1)
            return
        opened = socket.socket()
        opened.settimeout(0)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.connect_ex(("127.0.0.1", self._plan.port))
        self._open[opened.fileno()] = _Connection(opened, request, due)
        self._poll.register(opened, select.EPOLLOUT)

    def _on_event(self, connection: _Connection, event: int) -> None:
        try:
            if event & select.EPOLLOUT:
                connection.socket.send(connection.request)
                self._poll.modify(connection.socket, select.EPOLLIN)
                return
            data = connection.socket.recv(65536)
        except OSError:
            data = b""
        if data:
            self._on_data(connection, data)
        else:
            self._on_end(connection)

    def _on_data(self, connection: _Connection, data: bytes) -> None:
        received = connection.received = connection.received + data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(received, 0, end)
        if len(received) < end + 4 + (int(length[1]) if length else 0):
            return
        self._note(connection.due, int(received[9:12]))
        connection.received, connection.due = b"", 0.0
        self._idle.append(connection)

    def _on_end(self, connection: _Connection) -> None:
        del self._open[connection.socket.fileno()]
        connection.socket.close()
        connection.is_closed = True
        if not connection.due:
            return
        if connection.is_new or connection.received:
            self._note(connection.due, 0)
        else:  # it was idle too long and closed while this was on its way: clients ask again then
            self._send(connection.request, connection.due)

    def _note(self, due: float, status: int) -> None:
        self._under_way -= 1
        took_s = time.monotonic() - due
        self.answers.extend((round((due + self._wall) * 1e6), status, round(took_s * 1e6)))


def _schedule(plan: Plan, begin: float) -> Iterator[float]:
    """Give when each request is due, on the monotonic clock."""
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


if __name__ == "__main__":
    gc.disable()  # nothing here is a cycle that matters, and a pause would make requests late
    client = _Client(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan))
    client.open()
    client.run()
    Path(sys.argv[2]).write_bytes(client.answers.tobytes())
