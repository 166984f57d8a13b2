"""Networks that drop, delay or refuse, and slow clients."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.faults.harness.drill import Fault
from tests.faults.harness.stage import Stage
from tests.servers.proxy import GOOD, SILENT, Network


def degraded(service: str, bad: Network, *, party: str | None = None) -> Fault:
    """Apply *bad* to the network of *service*, for every party or *party* alone."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.network(service, bad, party=party)
        try:
            yield
        finally:
            stage.network(service, GOOD, party=party)

    return fault


def silent(service: str) -> Fault:
    """Drop all data in both directions; connections stay open."""
    return degraded(service, SILENT)


def refused(service: str) -> Fault:
    """Refuse new connections and reset open ones."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.network(service, Network(refuse=True))
        stage.reset(service)
        try:
            yield
        finally:
            stage.network(service, GOOD)

    return fault


def reset(service: str) -> Fault:
    """Reset every connection to *service* once."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.reset(service)
        yield

    return fault


@contextmanager
def slow_clients(stage: Stage) -> Iterator[None]:
    """Open idle connections, endless headers, endless bodies, and clients that never read."""
    with ExitStack() as connections:
        for gateway in stage.gateways:
            for _ in range(250):
                connections.enter_context(opened(gateway.port, b""))
            for _ in range(20):
                connections.enter_context(opened(gateway.port, b"GET /x HTTP/1.1\r\nHost: a\r\nX-A: "))
                connections.enter_context(opened(gateway.port, _ENDLESS_BODY))
                connections.enter_context(opened(gateway.port, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 50))
        yield


_ENDLESS_BODY = (
    b"POST /api/v1/links HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)


@contextmanager
def opened(port: int, data: bytes) -> Iterator[None]:
    """Hold a connection to *port* open, after sending *data*."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
        yield
