"""
An open-loop load: each request is sent when it is due, independent of earlier responses.

Usage: python -m bench.open_loop PLAN ANSWERS, two files; see `Plan` and `read`.

h2load and wrk are closed loops: a slow server slows them down. All connections of h2load also go
through a list in step, so most requests would be L1 hits. Here a request without an idle connection
opens another one, and latency counts from when a request was due.
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
# The wait for requests without a response.
_PATIENCE_S = 5.0
_ALIVE = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"


class Plan(msgspec.Struct, frozen=True):
    """
    The requests to send.

    Args:
        paths: a file with one path per line, requested in sequence, repeatedly.
        key: an API key, for creates.
        create_every: every n-th request creates a link.
        opened: the number of connections to open before the first request is due.
        connections: the maximum number; a request that finds all of them busy is not sent.
        phases: rates in requests a second, and the duration of each in seconds.
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
    Return the responses in ANSWERS, one for each request that was due.

    Latencies count from when a request was due; status 0: the connection broke or no response
    arrived, -1: the request was not sent.
    """
    numbers = array.array("q", file.read_bytes())
    return list(map(Seen, numbers[::3], numbers[1::3], numbers[2::3]))


class _Connection:
    """One connection with one request in flight; idle if `due` is 0."""

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

    On an asyncio loop, a request costs 75 µs: at ten thousand a second the load would starve
    PostgreSQL, which shares its processor, and measure its own delay.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._wall = time.time() - time.monotonic()
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        # First in, first out: a server closes connections that are idle for long.
        self._idle: deque[_Connection] = deque()
        self._in_flight = 0
        self.answers = array.array("q")

    def open(self) -> None:
        """Open the connections, and wait for a response on each."""
        now = time.monotonic()
        for _ in range(self._plan.opened):
            self._in_flight += 1
            self._send(_ALIVE, now)
        while self._in_flight and time.monotonic() < now + _PATIENCE_S:
            self._poll_once()
        self.answers = array.array("q")

    def run(self) -> None:
        """Send every request when it is due."""
        requests = _requests(self._plan)
        schedule = _schedule(self._plan, time.monotonic() + 0.1)
        due = next(schedule, None)
        given_up_at = math.inf
        while (now := time.monotonic()) < given_up_at and (due is not None or self._in_flight):
            while due is not None and due <= now:
                self._in_flight += 1
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
                with contextlib.suppress(OSError):  # epoll will report the error
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
        else:  # the server closed an idle connection during the send: retry, as clients do
            self._send(connection.request, connection.due)

    def _note(self, due: float, status: int) -> None:
        self._in_flight -= 1
        took_s = time.monotonic() - due
        self.answers.extend((round((due + self._wall) * 1e6), status, round(took_s * 1e6)))


def _schedule(plan: Plan, begin: float) -> Iterator[float]:
    """Yield when each request is due, on the monotonic clock."""
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
    gc.disable()  # a collection would delay requests, and few cycles arise here
    client = _Client(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan))
    client.open()
    client.run()
    Path(sys.argv[2]).write_bytes(client.answers.tobytes())
