"""SIGTERM: first nobody is sent here any more, then the door is closed, and nobody is turned away."""

from __future__ import annotations

import contextlib
import socket

import httpx
import pytest

from app.resilience.deadline import DRAIN_S
from tests.servers.hopgate import Gateway, eventually, hopgate
from tests.servers.ports import is_listening
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def settings(postgres, redis_server, rabbitmq):
    settings = stack_settings(postgres, redis_server, rabbitmq)
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "known")
    assert made.returncode == 0, made.stderr
    return {**settings, "HOPGATE_DRAIN_DELAY_S": "10", "HOPGATE_WORKERS": "2"}


def test_readiness_goes_off_first_while_new_visitors_are_still_served(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200

        gateway._process.terminate()

        # Every request on a connection of its own: whichever process answers.
        eventually(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 503, 5, "readiness is off")
        for _ in range(20):
            assert httpx.get(f"{gateway.url}/readyz").json() == {"status": "draining"}
            assert httpx.get(f"{gateway.url}/known").status_code == 302
            assert httpx.get(f"{gateway.url}/healthz").status_code == 200

        # Whoever asks again does not want to wait.
        gateway._process.terminate()
        assert gateway._process.wait(8) == 0


def test_it_ends_by_itself_when_the_delay_is_over(settings, tmp_path):
    with Gateway({**settings, "HOPGATE_DRAIN_DELAY_S": "0.5"}, tmp_path) as gateway:
        assert gateway.stop(timeout=DRAIN_S) == 0


def test_nobody_is_let_in_who_would_not_be_served(settings, tmp_path):
    """A socket that any process still had would take visitors, and reset them at the end."""
    with (
        Gateway({**settings, "HOPGATE_DRAIN_DELAY_S": "0"}, tmp_path) as gateway,
        contextlib.ExitStack() as requests,
    ):
        for _ in range(20):
            connection = requests.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            connection.sendall(b"GET /known HTTP/1.1\r\nHos")

        gateway._process.terminate()

        eventually(lambda: not is_listening(gateway.port), 5, "the port is closed")
        assert gateway._process.poll() is None, "it has ended, and closed everything with that"
