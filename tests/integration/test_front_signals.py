"""The front and signals: what is under way ends, what waits is answered, and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading

import httpx
import pytest

from app.resilience.deadline import DRAIN_S
from tests.integration.front_gateway import FRONT, get, is_of_the_front, total, workers_of
from tests.servers.hopgate import Gateway, eventually
from tests.servers.raw_http import answer_on

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def gateway(tmp_path):
    gateway = Gateway({"HOPGATE_DATA_DIR": str(tmp_path / "data"), **FRONT}, tmp_path)
    with gateway:
        yield gateway


def connected(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=30)


def creates(gateway: Gateway, slug: str) -> tuple[bytes, bytes]:
    """Return a request for a link in two parts."""
    [token] = re.findall(r"Bearer (hg_\w+)", gateway.output)
    content = f'{{"long_url": "https://example.com/late", "slug": "{slug}"}}'.encode()
    head = (
        "POST /api/v1/links HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content[:5], content[5:]


def is_refused(gateway: Gateway) -> bool:
    try:
        with connected(gateway):
            return False
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_requests_under_way_are_finished(gateway, number):
    """SIGTERM goes to the parent; SIGINT, as from a terminal, to all processes."""
    with connected(gateway) as writing, connected(gateway) as idle:
        first, rest = creates(gateway, "late")
        writing.sendall(first)
        idle.sendall(HEALTH)
        assert answer_on(idle).status == 200

        if number is signal.SIGINT:
            gateway.signal(number)
        else:
            os.kill(gateway.pid, number)
        eventually(lambda: is_refused(gateway), 20, "the port is closed")
        assert idle.recv(100) == b"", "an idle connection is closed at once"
        writing.sendall(rest)
        answer = answer_on(writing)

    assert answer.status == 201
    assert answer.header("connection") == "close"
    assert gateway._process is not None
    assert gateway._process.wait(DRAIN_S + 10) == 0


@pytest.mark.parametrize("front", ["off", "on"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_to_one_worker_ends_that_worker(tmp_path, front, number):
    """It finishes what is under way, and its parent starts another one."""
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_FRONT": front}
    with Gateway(settings, tmp_path) as gateway, connected(gateway) as writing:
        [worker] = workers_of(gateway)
        first, rest = creates(gateway, "late")
        writing.sendall(first)
        eventually(lambda: total(gateway, "http_server_active_requests") > 1, what="the request is under way")

        os.kill(worker, number)
        writing.sendall(rest)
        answer = answer_on(writing)
        eventually(lambda: workers_of(gateway) not in ([], [worker]), 30, "another worker")

        assert answer.status == 201
        assert get(gateway, "/late").status == 302
        assert is_of_the_front(get(gateway, "/late")) is (front == "on")


def test_killed_worker_loses_no_queued_connection(gateway):
    [token] = re.findall(r"Bearer (hg_\w+)", gateway.output)
    headers = {"Authorization": f"Bearer {token}"}
    link = {"long_url": "https://example.com/", "slug": "known"}
    assert httpx.post(f"{gateway.url}/api/v1/links", json=link, headers=headers).status_code == 201
    [worker] = workers_of(gateway)
    statuses = []

    os.kill(worker, signal.SIGKILL)
    threads = [
        threading.Thread(target=lambda: statuses.append(get(gateway, "/known").status)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert statuses == [302] * 20
    [successor] = workers_of(gateway)
    assert successor != worker
    eventually(lambda: is_of_the_front(get(gateway, "/known")), what="the successor has a front")
    assert gateway.stop(timeout=DRAIN_S + 10) == 0


def test_clicks_of_the_front_outlive_it(gateway, tmp_path):
    """Those of the last second are kept when the process ends."""
    [token] = re.findall(r"Bearer (hg_\w+)", gateway.output)
    headers = {"Authorization": f"Bearer {token}"}
    links = f"{gateway.url}/api/v1/links"
    link = {"long_url": "https://example.com/", "slug": "clicked"}
    assert httpx.post(links, json=link, headers=headers).status_code == 201
    for _ in range(10):
        assert get(gateway, "/clicked").status == 302

    assert gateway.stop(timeout=DRAIN_S + 10) == 0
    gateway.start()

    def visits() -> int:
        return httpx.get(f"{links}/clicked", headers=headers).json()["visits"]

    eventually(lambda: visits() == 10, 30, "all clicks are there")
