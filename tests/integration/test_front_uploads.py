"""Batches through the front: large bodies, and bodies whose length is not known."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from app.web.bulk_api import PATH
from app.web.front import Caps
from tests.integration.api_calls import LINKS, problem
from tests.integration.front_alone import alone, answer
from tests.integration.front_gateway import FRONT
from tests.servers.hopgate import UNLIMITED, Gateway, make_key
from tests.servers.raw_http import answer_on, read_answer

BULK = f"{LINKS}/bulk"
ITEM = {"long_url": "https://example.com/" + "x" * 200}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("front")
    settings = {"HOPGATE_DATA_DIR": str(directory / "data"), **UNLIMITED, **FRONT}
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with (
        Gateway(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers=headers, timeout=30) as client,
    ):
        yield client


def test_large_batch_is_stored(client):
    answer = client.post(BULK, json={"links": [ITEM] * 2_000})

    assert [one["status"] for one in answer.json()["results"]] == [201] * 2_000


def test_lines_of_unknown_length_are_answered(client):
    lines = (json.dumps(ITEM).encode() + b"\n" for _ in range(1_200))

    answer = client.post(BULK, content=lines, headers={"Content-Type": "application/x-ndjson"})

    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [201] * 1_200


def test_other_paths_take_no_large_body(client):
    problem(client.post(LINKS, json={**ITEM, "title": "x" * 70_000}), 413, "body_too_large")


def test_large_batch_comes_below_the_path_of_the_base_url(tmp_path):
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        "HOPGATE_BASE_URL": "http://hop.example/go",
        **UNLIMITED,
        **FRONT,
    }
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with Gateway(settings, tmp_path) as gateway:
        answer = httpx.post(
            f"{gateway.url}/go{BULK}", json={"links": [ITEM] * 500}, headers=headers, timeout=30
        )

    assert answer.status_code == 200


# --- the time of a client, and that of the application -----------------------------------------

BATCH = "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: x", "Content-Length: 2", "Connection: close", "", ""])


def test_time_of_an_answer_begins_with_the_last_byte_of_a_batch():
    """Even if it comes when the time would have ended."""

    def slow(connection: socket.socket, received: bytes) -> None:
        while len(received) < 2:
            received += connection.recv(2)
        time.sleep(0.4)
        connection.sendall(answer(body=received))

    with alone(slow, caps=Caps(answer_s=0.6)) as alone_, alone_.connect() as connection:
        connection.sendall(f"{BATCH}a".encode())
        time.sleep(0.5)
        connection.sendall(b"b")

        assert answer_on(connection).body == b"ab"


@pytest.mark.parametrize("pauses", [[0.1, 1.5], [0.5, 0.5]])
def test_answered_batch_may_pause(pauses):
    """Lines are answered while others still come: the application limits the time of those."""
    before_s, after_s = pauses

    def lines(connection: socket.socket, received: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + (received or connection.recv(1)))
        last = connection.recv(1)
        time.sleep(0.3)
        connection.sendall(last)

    with alone(lines, caps=Caps(answer_s=0.6)) as alone_, alone_.connect() as connection:
        time.sleep(before_s)
        connection.sendall(f"{BATCH}a".encode())
        time.sleep(after_s)
        connection.sendall(b"b")

        assert answer_on(connection).body == b"ab"


def test_client_that_goes_on_after_the_end_of_the_answer_is_not_reset():
    """The application ends a stream whose batch it cannot store; the client may have lines on the way."""

    def end(connection: socket.socket, _received: bytes) -> None:
        connection.sendall(answer(body=b"no more"))
        connection.close()

    with alone(end) as alone_, alone_.connect() as connection:
        lines = [f"POST {PATH} HTTP/1.1", "Host: x", "Content-Length: 100000", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert answer_on(connection).body == b"no more"
        for _ in range(20):
            connection.sendall(b"x" * 100)
            time.sleep(0.01)


def test_silence_after_an_answered_batch_ends():
    """The client has sent all: what is missing is the application's."""

    def half(connection: socket.socket, _received: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    with alone(half, caps=Caps(answer_s=0.3)) as alone_, alone_.connect() as connection:
        connection.sendall(f"{BATCH}a".encode())
        time.sleep(0.5)
        connection.sendall(b"b")

        received = read_answer(connection)
        assert received is not None
        assert received.body == b"half"
