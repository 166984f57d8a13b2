"""The examples as real servers: two processes of each share one limit through Redis."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers import processes
from tests.servers.ports import free_ports

pytestmark = pytest.mark.services

EXAMPLES = Path(__file__).parents[2] / "pyext" / "examples"

# Without --no-proxy-headers uvicorn itself believes what 127.0.0.1 forwards.
UVICORN = ["-m", "uvicorn", "--no-proxy-headers", "--log-level", "warning", "--port", "{port}"]
GUNICORN = ["-m", "gunicorn", "--log-level", "warning", "--bind", "127.0.0.1:{port}"]
SERVERS = {
    "fastapi": [*UVICORN, "fastapi_app:app"],
    "flask": [*GUNICORN, "--workers", "2", "--preload", "flask_app:create_app()"],
    "django-wsgi": [*GUNICORN, "django_app:application"],
    "django-asgi": [*UVICORN, "--lifespan", "off", "django_app:asgi_application"],
    "robyn": ["robyn_app.py", "--log-level", "WARN"],
}


@contextmanager
def running(arguments: list[str], redis_url: str, log: Path) -> Iterator[str]:
    """Serve an example; give its URL once it answers."""
    (port,) = free_ports(1)
    command = [sys.executable, *(argument.format(port=port) for argument in arguments)]
    environment = {**os.environ, "REDIS_URL": redis_url, "PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1"}
    process = processes.start(command, output=log, environment=environment, directory=EXAMPLES)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                assert httpx.get(f"{url}/healthz").status_code == 200
                break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        yield url
    finally:
        processes.end(process, signal.SIGKILL)


@pytest.mark.parametrize("name", SERVERS)
def test_processes_of_an_example_share_its_limits(name, redis_server, tmp_path):
    redis_server.flush()
    with ExitStack() as stack:
        urls = [
            stack.enter_context(running(SERVERS[name], redis_server.url, tmp_path / f"{number}.log"))
            for number in range(2)
        ]
        client = stack.enter_context(httpx.Client())
        asked = []
        for number, url in zip(range(8), itertools.cycle(urls), strict=False):
            # No proxy is configured at this address, so what the client forwards is its own invention.
            spoofed = {"X-Forwarded-For": f"203.0.113.{number}"}
            asked.append(client.get(f"{url}/search", headers=spoofed))
        home = client.get(urls[0])

    statuses = [response.status_code for response in asked]
    # 4/min over both. One of them is leased: to the other process, or until its lease ended, if the next
    # request came too late. Another is the reserve for that lease.
    assert statuses.count(200) in {2, 3, 4}, (statuses, (tmp_path / "0.log").read_text())
    assert statuses.count(429) == len(statuses) - statuses.count(200)
    for refused in (response for response in asked if response.status_code == 429):
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["violated-policies"] == ["4/min"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers.get_list("ratelimit-policy") == ['"4/min";q=4;w=60']
    assert home.status_code == 200
    assert home.json() == {"hello": "world"}
    assert home.headers["ratelimit-policy"] == '"100/min";q=20;w=12'
