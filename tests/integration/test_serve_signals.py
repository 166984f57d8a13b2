"""`hopgate serve` and signals: what is under way ends, what waits is answered."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.resilience.deadline import DRAIN_S
from tests.servers.hopgate import Gateway, Process, eventually


@pytest.fixture
def settings(tmp_path):
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data")}


def children(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True).stdout.split()
    return [int(process) for process in found]


def states(process: int) -> set[str]:
    """Return the states of the threads of *process*, as in /proc: T for stopped."""
    threads = Path(f"/proc/{process}/task").glob("*/stat")
    return {thread.read_text().rpartition(")")[2].split()[0] for thread in threads}


def test_sigterm_finishes_the_request_in_flight(settings, tmp_path):
    """A request whose body is still being sent is read to its end and answered."""
    gateway = Gateway(settings, tmp_path)
    with gateway:
        [token] = re.findall(r"Bearer (hg_\w+)", gateway.output)
        content = b'{"long_url": "https://example.com/late"}'
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
            connection.sendall(
                b"POST /api/v1/links HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                + f"Authorization: Bearer {token}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content[:5]
            )
            time.sleep(0.3)  # the handler has begun to read
            stopped = threading.Thread(target=gateway.stop)
            stopped.start()
            time.sleep(0.3)  # the signal has arrived
            connection.sendall(content[5:])
            answer = connection.recv(65536)
            stopped.join()

    assert b" 201 " in answer.split(b"\r\n")[0]


def test_sigterm_does_not_wait_for_idle_connections(settings, tmp_path):
    with (
        Gateway(settings, tmp_path) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as idle,
    ):
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.recv(65536)

        assert gateway.stop(timeout=25) == 0


def test_sigterm_does_not_wait_for_incomplete_requests(settings, tmp_path):
    """One with half a body, one with half a header."""
    with Gateway(settings, tmp_path) as gateway:
        [token] = re.findall(r"Bearer (hg_\w+)", gateway.output)
        halves = (
            (
                f"POST /api/v1/links HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n{{"
            ),
            "GET /healthz HTTP/1.1\r\nHos",
        )
        stuck = [socket.create_connection(("127.0.0.1", gateway.port), timeout=20) for _ in halves]
        try:
            for connection, half in zip(stuck, halves, strict=True):
                connection.sendall(half.encode())
            assert httpx.get(f"{gateway.url}/healthz").status_code == 200

            assert gateway.stop(timeout=DRAIN_S + 5) == 0
        finally:
            for connection in stuck:
                connection.close()


@pytest.mark.parametrize("after_s", [0, 0.03, 0.08])
def test_sigterm_during_start_ends_the_server(settings, tmp_path, after_s):
    gateway = Gateway(settings, tmp_path)
    try:
        Process.start(gateway)
        eventually(lambda: "Spawning worker-1" in gateway.output, what="a process is started")
        time.sleep(after_s)

        assert gateway.stop(timeout=10) == 0
    finally:
        gateway.kill()


def test_queued_connection_survives_a_killed_worker(settings, tmp_path):
    with Gateway(settings, tmp_path) as gateway:
        for _ in range(3):
            [process] = children(gateway.pid)
            os.kill(process, signal.SIGSTOP)
            eventually(lambda frozen=process: states(frozen) == {"T"}, what="it accepts nothing")
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as waiting:
                waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                os.kill(process, signal.SIGKILL)
                eventually(lambda gone=process: gone not in children(gateway.pid), what="it is gone")

                # No process accepts connections at this moment.
                assert httpx.get(f"{gateway.url}/healthz", timeout=10).status_code == 200
                assert b" 200 " in waiting.recv(65536).split(b"\r\n")[0]
