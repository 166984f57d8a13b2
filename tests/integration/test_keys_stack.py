"""Restricted keys on two gateways, with real PostgreSQL, Redis and RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.integration.api_calls import LINKS
from tests.servers.hopgate import Gateway, eventually, make_key
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
BULK, ME = f"{LINKS}/bulk", "/api/v1/me"


class Site:
    """Two gateways, and clients of them."""

    def __init__(self, running: ExitStack, gateways: list[Gateway], key: str) -> None:
        self._running = running
        self._gateways = gateways
        self.admins = self.clients(key)

    def clients(self, key: str) -> list[httpx.Client]:
        headers = {"Authorization": f"Bearer {key}"}
        return [
            self._running.enter_context(httpx.Client(base_url=one.url, headers=headers, timeout=30))
            for one in self._gateways
        ]

    def key(self, **body: Any) -> tuple[str, list[httpx.Client]]:
        """Make a key; return its id, and a client of each gateway that has it."""
        scopes = {"name": "made", "scopes": ["links:read", "links:write"]}
        answer = self.admins[0].post("/api/v1/keys", json={**scopes, **body})
        assert answer.status_code == 201, answer.text
        return answer.json()["key_id"], self.clients(answer.json()["key"])


@pytest.fixture
def site(postgres, redis_server, rabbitmq, tmp_path) -> Iterator[Site]:
    settings = stack_settings(postgres, redis_server, rabbitmq)
    with ExitStack() as running:
        gateways = [running.enter_context(Gateway(settings, tmp_path)) for _ in range(2)]
        yield Site(running, gateways, make_key(settings))


def test_restrictions_hold_on_every_gateway(site: Site):
    key_id, (one, other) = site.key(own_links=True)
    items = [
        {"long_url": "https://example.com/", "external_id": f"mine-{n}", "tags": ["t"]} for n in range(3)
    ]
    made = one.post(BULK, json={"links": items}).json()["results"]
    others = site.admins[0].post(LINKS, json={**items[0], "external_id": "other"}).json()
    site.admins[1].patch(f"{LINKS}/{made[0]['link']['slug']}", json={"owner": None})

    assert {result["link"]["owner"] for result in made} == {key_id}
    left = [result["link"]["slug"] for result in made[1:]]
    assert [link["slug"] for link in other.get(LINKS).json()["links"]] == left[::-1]
    assert other.get("/api/v1/tags").json()["tags"] == [{"tag": "t", "links": 2}]
    wanted = [{"slug": slug, "title": "x"} for slug in (others["slug"], made[0]["link"]["slug"], left[0])]
    edited = other.patch(BULK, json={"links": wanted}).json()["results"]
    assert [result["status"] for result in edited] == [404, 404, 200]
    again = other.post(BULK, json={"links": items, "upsert": "external_id"}).json()["results"]
    assert [result["status"] for result in again] == [409, 200, 200]
    assert other.delete("/api/v1/tags", params={"tag": "t"}).json()["changed"] == 2
    assert site.admins[0].get("/api/v1/tags").json()["tags"] == [{"tag": "t", "links": 2}]


def test_revoked_and_rotated_keys_end_everywhere_within_a_second(site: Site):
    key_id, clients = site.key(own_links=True)
    assert [client.get(ME).status_code for client in clients] == [200, 200]

    site.admins[0].post(f"/api/v1/keys/{key_id}/rotate", json={"grace": "0"})

    eventually(lambda: {client.get(ME).status_code for client in clients} == {401})


def test_gateways_keep_a_rate_together(site: Site):
    _, clients = site.key(rate_limit="40 per day")

    admitted = sum(client.get(ME).status_code == 200 for _ in range(60) for client in clients)

    assert 20 <= admitted <= 40 + 2 * 10
