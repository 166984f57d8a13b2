"""An overloaded gateway refuses a request before it reads the body, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.harness.stage import granian
from tests.servers.hopgate import Gateway, hopgate

_BODY = 60_000


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory: Path = tmp_path_factory.mktemp("crowded")
    settings = {"HOPGATE_DATA_DIR": str(directory)}
    assert hopgate(settings, "migrate").returncode == 0
    gateway = Gateway(settings, directory)
    gateway._arguments = granian("tests.integration.overloaded_gateway:create", gateway.port)
    with gateway:
        yield gateway


def test_shed_creates_keep_their_order(crowded: Gateway) -> None:
    with httpx.Client(base_url=crowded.url) as client:
        for size in (10, _BODY, 10, _BODY, 0):
            answer = client.post("/api/v1/links", content=b"x" * size)
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] in {"1", "2", "3"}
        assert client.get("/healthz").status_code == 200


def test_refusal_precedes_the_body(crowded: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", crowded.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/links HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 60000\r\n\r\n{"
        )
        answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 503 ")

        # The rest is read as the body, or the connection ends: it is never read as a request.
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        client.settimeout(1.0)
        try:
            rest = client.recv(65_536)
        except (TimeoutError, ConnectionResetError):
            rest = b""
        assert b"200" not in rest
