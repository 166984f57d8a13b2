"""Batches on two gateways and a worker, with real PostgreSQL, Redis and RabbitMQ."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.integration.api_calls import LINKS
from tests.servers.hopgate import Gateway, Worker, eventually, hopgate, make_key
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
BULK = f"{LINKS}/bulk"
URL = "https://example.com/"
COUNT = 600


class Site:
    def __init__(self, settings, gateways, key) -> None:
        self.settings = settings
        self.gateways = gateways
        self.headers = {"Authorization": f"Bearer {key}"}
        self.clients: list[httpx.Client] = []

    def is_consistent(self) -> bool:
        """Is what is cached what is stored?"""
        return hopgate(self.settings, "check").returncode == 0


@pytest.fixture
def site(postgres, redis_server, rabbitmq, tmp_path) -> Iterator[Site]:
    settings = stack_settings(postgres, redis_server, rabbitmq)
    with ExitStack() as running:
        gateways = [running.enter_context(Gateway(settings, tmp_path)) for _ in range(2)]
        running.enter_context(Worker(settings, tmp_path))
        site = Site(settings, gateways, make_key(settings))
        for gateway in gateways:
            client = httpx.Client(base_url=gateway.url, headers=site.headers, timeout=30)
            site.clients.append(running.enter_context(client))
        yield site


def send(client, method: str, links: list) -> list[dict]:
    answer = client.request(method, BULK, json={"links": links})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def targets(client, slugs: list[str]) -> set[str | None]:
    return {client.get(f"/{slug}").headers.get("location") for slug in slugs}


def wait_for(client, slugs: list[str], target: str, timeout_s: float) -> None:
    """Wait until all *slugs* lead to *target*; those of some are asked for until they do, then all."""
    for asked in (slugs[:20] + slugs[-20:], slugs):
        eventually(lambda asked=asked: targets(client, asked) == {target}, timeout_s, every=0.1)


def test_caches_hear_of_every_change(site: Site):
    one, other = site.clients
    slugs = [result["link"]["slug"] for result in send(one, "POST", [{"long_url": URL}] * COUNT)]
    assert targets(other, slugs) == {URL}

    moved = send(one, "PATCH", [{"slug": slug, "long_url": f"{URL}moved"} for slug in slugs])

    assert {result["status"] for result in moved} == {200}
    wait_for(other, slugs, f"{URL}moved", 10)
    send(other, "DELETE", slugs)
    eventually(lambda: {one.get(f"/{slug}").status_code for slug in slugs} == {410}, 10, every=0.1)
    eventually(site.is_consistent, 60, every=0.5)


def test_broker_outage_loses_no_change(site: Site, rabbitmq):
    one, other = site.clients
    slugs = [result["link"]["slug"] for result in send(one, "POST", [{"long_url": URL}] * COUNT)]
    targets(other, slugs)

    rabbitmq.stop()
    try:
        moved = send(one, "PATCH", [{"slug": slug, "long_url": f"{URL}moved"} for slug in slugs])
        made = send(one, "POST", [{"long_url": f"{URL}new"}] * COUNT)
    finally:
        rabbitmq.start()

    assert {result["status"] for result in moved} == {200}
    assert targets(other, [result["link"]["slug"] for result in made]) == {f"{URL}new"}
    wait_for(other, slugs, f"{URL}moved", 60)
    eventually(site.is_consistent, 90, every=0.5)


def test_repeated_request_after_a_crash_is_done_once(site: Site):
    """The answer is stored with the links, so another gateway gives it."""
    _, other = site.clients
    body = json.dumps({"links": [{"long_url": f"{URL}{n}", "external_id": f"x{n}"} for n in range(COUNT)]})
    head = (
        f"POST {BULK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: crash\r\n"
        f"Authorization: {site.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.gateways[0].port)) as connection:
        connection.sendall((head + body).encode())
        eventually(lambda: len(other.get(LINKS, params={"limit": 1}).json()["links"]) == 1)
        site.gateways[0].kill()

    headers = {"Idempotency-Key": "crash", "Content-Type": "application/json"}
    answer = other.post(BULK, content=body, headers=headers)

    assert answer.headers["idempotency-replayed"] == "true"
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [201] * COUNT
    assert [result["link"]["long_url"] for result in results] == [f"{URL}{n}" for n in range(COUNT)]
    assert {other.get(f"{LINKS}/{result['link']['slug']}").status_code for result in results[:50]} == {200}


def test_first_batches_of_a_new_key_are_within_the_shared_limit(site: Site, tmp_path):
    """
    10,000 items take seconds under the default limit, also before Redis has leased anything.

    Drafts without a target are charged as any, and store nothing.
    """
    settings = {name: value for name, value in site.settings.items() if name != "HOPGATE_LIMIT_BULK"}
    body: dict[str, list[dict[str, str]]] = {"links": [{}] * 5_000}
    with Gateway(settings, tmp_path) as gateway:
        began = time.monotonic()
        statuses = [
            httpx.post(gateway.url + BULK, json=body, headers=site.headers, timeout=30).status_code
            for _ in range(12)
        ]
        took_s = time.monotonic() - began

    assert statuses[:2] == [200, 200]
    # The default: a burst, and so many a second.
    assert statuses.count(200) * 5_000 <= 40_000 + 1_000 * took_s
