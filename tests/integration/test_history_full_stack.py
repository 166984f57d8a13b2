"""The undo of a removal, seen by two gateways over PostgreSQL, Redis and RabbitMQ."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.integration.front_gateway import ALONE, FRONT
from tests.servers.hopgate import Gateway, Worker, eventually, hopgate, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS, TARGET = "/api/v1/links", "https://example.com/"


class Site:
    """Servers, a gateway without and one with the front, and a client of each."""

    def __init__(self, running: ExitStack, directory, rabbitmq: PrivateRabbit) -> None:
        self.redis = running.enter_context(PrivateRedis())
        postgres = running.enter_context(PrivatePostgres())
        self.settings = stack_settings(postgres, self.redis, rabbitmq)
        assert hopgate(self.settings, "migrate").returncode == 0
        headers = {"Authorization": f"Bearer {make_key(self.settings)}"}
        gateways = [
            running.enter_context(Gateway({**self.settings, **more}, directory)) for more in (ALONE, FRONT)
        ]
        running.enter_context(Worker(self.settings, directory))
        self.clients = [
            running.enter_context(httpx.Client(base_url=gateway.url, headers=headers, timeout=10))
            for gateway in gateways
        ]
        eventually(self.all_well, 30, "everything is connected")

    def all_well(self) -> bool:
        shown = [client.get("/readyz").json() for client in self.clients]
        return all(set(one["dependencies"].values()) == {"ok"} for one in shown)

    def see(self, path: str, status: int, target: str | None = None) -> None:
        """Wait until both gateways answer so; a lost event costs two seconds at most."""
        for client in self.clients:

            def answers(client: httpx.Client = client) -> bool:
                answer = client.get(path)
                return (answer.status_code, answer.headers.get("location")) == (status, target)

            eventually(answers, 30, f"{path} answers {status}")


@pytest.fixture(scope="module")
def site(tmp_path_factory, rabbitmq) -> Iterator[Site]:
    with ExitStack() as running:
        yield Site(running, tmp_path_factory.mktemp("history"), rabbitmq)


def test_restored_link_replaces_every_tombstone(site):
    """It replaces those in the L1 cache and the table of each gateway, and the one in Redis."""
    one, other = site.clients
    target = f"{TARGET}{secrets.token_hex(4)}"
    slug = one.post(LINKS, json={"long_url": target}).json()["slug"]
    site.see(f"/{slug}", 302, target)
    assert one.delete(f"{LINKS}/{slug}").status_code == 204
    site.see(f"/{slug}", 410)

    back = other.post(f"{LINKS}/{slug}/undo", headers={"If-Match": '"2"'})

    assert (back.status_code, back.json()["version"]) == (200, 3)
    site.see(f"/{slug}", 302, target)
    assert hopgate(site.settings, "check", "--json").returncode == 0
    assert hopgate(site.settings, "links", "undo", slug).returncode == 0
    site.see(f"/{slug}", 410)
    found = one.get(f"{LINKS}/{slug}/history").json()["changes"]
    assert [(change["action"], change["by"] == "cli") for change in found] == [
        ("undo", True),
        ("undo", False),
        ("remove", False),
    ]


def test_undo_is_seen_while_redis_is_away(site):
    one, other = site.clients
    slug = one.post(LINKS, json={"long_url": f"{TARGET}1"}).json()["slug"]
    one.patch(f"{LINKS}/{slug}", json={"long_url": f"{TARGET}2"})
    site.see(f"/{slug}", 302, f"{TARGET}2")
    site.redis.kill()
    try:
        assert other.post(f"{LINKS}/{slug}/undo").status_code == 200
        site.see(f"/{slug}", 302, f"{TARGET}1")
    finally:
        site.redis.start()
    eventually(site.all_well, 40, "Redis is back")
    site.see(f"/{slug}", 302, f"{TARGET}1")
