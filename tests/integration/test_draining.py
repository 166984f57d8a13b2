"""SIGTERM: readiness goes off, requests are still served, then the port is closed."""

from __future__ import annotations

import contextlib
import socket

import httpx
import pytest

from app.resilience.deadline import DRAIN_S
from tests.servers.hopgate import Gateway, eventually, hopgate
from tests.servers.ports import is_listening
from tests.servers.processes import Started
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


def process_of(gateway: Gateway) -> Started:
    """Return the parent process of *gateway*, to signal it alone."""
    assert gateway._process is not None
    return gateway._process


@pytest.fixture
def settings(postgres, redis_server, rabbitmq):
    settings = stack_settings(postgres, redis_server, rabbitmq)
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "known")
    assert made.returncode == 0, made.stderr
    return {**settings, "HOPGATE_DRAIN_DELAY_S": "10", "HOPGATE_WORKERS": "2"}


def test_draining_gateway_is_unready_and_still_serves(settings, tmp_path):
    # Each request has a connection of its own, so that both processes answer. One client for all: a new
    # one costs some 100 ms on a busy machine, and 60 of them would outlast the delay.
    alone = httpx.Limits(max_keepalive_connections=0)
    with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url, limits=alone) as client:
        assert client.get("/readyz").status_code == 200

        process_of(gateway).terminate()

        eventually(lambda: client.get("/readyz").status_code == 503, 30, "readiness is off")
        for _ in range(20):
            assert client.get("/readyz").json() == {"status": "draining"}
            assert client.get("/known").status_code == 302
            assert client.get("/healthz").status_code == 200

        # A second SIGTERM skips the rest of the delay.
        process_of(gateway).terminate()
        assert process_of(gateway).wait(8) == 0


def test_gateway_ends_after_the_drain_delay(settings, tmp_path):
    with Gateway({**settings, "HOPGATE_DRAIN_DELAY_S": "0.5"}, tmp_path) as gateway:
        assert gateway.stop(timeout=DRAIN_S) == 0


def test_closed_port_accepts_no_connection(settings, tmp_path):
    """A socket that one process kept open would accept connections, and reset them at the end."""
    with (
        Gateway({**settings, "HOPGATE_DRAIN_DELAY_S": "0"}, tmp_path) as gateway,
        contextlib.ExitStack() as requests,
    ):
        for _ in range(20):
            connection = requests.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            connection.sendall(b"GET /known HTTP/1.1\r\nHos")

        process_of(gateway).terminate()

        eventually(lambda: not is_listening(gateway.port), 30, "the port is closed")
        assert process_of(gateway).poll() is None, "the gateway has ended, which closes every socket"
