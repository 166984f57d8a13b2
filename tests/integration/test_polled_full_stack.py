"""Blocks and domains on two gateways over PostgreSQL, Redis and RabbitMQ, and while one of these is away."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.integration.front_gateway import ALONE, FRONT
from tests.servers.hopgate import Gateway, Worker, becomes, eventually, hopgate, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS, BLOCKS, DOMAINS = "/api/v1/links", "/api/v1/blocks", "/api/v1/domains"


class Site:
    """Private servers, a gateway without and one with the front, and a client of each."""

    def __init__(self, running: ExitStack, directory) -> None:
        self.postgres = running.enter_context(PrivatePostgres())
        self.redis = running.enter_context(PrivateRedis())
        self.rabbitmq = running.enter_context(PrivateRabbit())
        self.settings = stack_settings(self.postgres, self.redis, self.rabbitmq)
        key = make_key(self.settings_after_migration())
        self.gateways = [
            running.enter_context(Gateway({**self.settings, **more}, directory)) for more in (ALONE, FRONT)
        ]
        running.enter_context(Worker(self.settings, directory))
        headers = {"Authorization": f"Bearer {key}"}
        self.clients = [
            running.enter_context(httpx.Client(base_url=gateway.url, headers=headers, timeout=10))
            for gateway in self.gateways
        ]
        eventually(self.all_well, 30, "everything is connected")

    def settings_after_migration(self) -> dict[str, str]:
        done = hopgate(self.settings, "migrate")
        assert done.returncode == 0, done.stderr
        return self.settings

    def all_well(self) -> bool:
        shown = [client.get("/readyz").json() for client in self.clients]
        return all(
            set(one["dependencies"].values()) == {"ok"} and "open" not in one["breakers"].values()
            for one in shown
        )

    def link(self) -> tuple[str, str]:
        """Make a link that both gateways have served; return its host and path."""
        host = f"h{secrets.token_hex(6)}.example"
        answer = self.clients[0].post(LINKS, json={"long_url": f"https://www.{host}/"})
        assert answer.status_code == 201, answer.text
        path = f"/{answer.json()['slug']}"
        self.see(path, 302)
        return host, path

    def see(self, path: str, status: int, host: str = "hop.example") -> None:
        """Wait until both gateways answer *status* to a visit at *host*."""
        headers = {"Host": host}
        for client in self.clients:
            eventually(
                lambda client=client: client.get(path, headers=headers).status_code == status,
                2.5,
                f"{host}{path} answers {status}",
            )

    def block(self, host: str) -> None:
        answer = self.clients[0].post(BLOCKS, json={"hosts": [host]})
        assert answer.status_code == 200, answer.text

    def unblock(self, host: str) -> None:
        assert self.clients[1].delete(f"{BLOCKS}/hosts/{host}").status_code == 204


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    with ExitStack() as running:
        yield Site(running, tmp_path_factory.mktemp("blocks"))


def test_block_holds_on_every_gateway(site):
    host, path = site.link()

    site.block(host)

    site.see(path, 451)
    site.unblock(host)
    site.see(path, 302)


@pytest.mark.parametrize("away", ["rabbitmq", "redis"])
def test_block_holds_while_a_server_is_away(site, away):
    host, path = site.link()
    server = getattr(site, away)
    server.kill()
    try:
        site.block(host)
        site.see(path, 451)
        site.unblock(host)
        site.see(path, 302)
    finally:
        server.start()
    eventually(site.all_well, 40, f"{away} is back")


def test_stale_copies_are_blocked(site):
    """With neither Redis nor PostgreSQL, a gateway serves what it has read, and no blocked link."""
    host, path = site.link()
    free, other = site.link()
    site.block(host)
    site.see(path, 451)
    site.redis.kill()
    site.postgres.kill()
    try:
        for client in site.clients:
            becomes(lambda client=client: client.get(other).status_code, 302, 30, "a stale redirect")
            for _ in range(10):
                assert client.get(path).status_code in (451, 503)
    finally:
        site.postgres.start()
        site.redis.start()
    eventually(site.all_well, 40, "both are back")
    site.see(path, 451)
    assert free


def test_domain_is_served_by_every_gateway(site):
    """Two links of one slug, of which one is edited, disabled and removed."""
    first, second = site.clients
    host = f"d{secrets.token_hex(6)}.example"
    assert first.post(DOMAINS, json={"host": host}).status_code == 201
    # The other gateway has not asked for changes yet, maybe.
    body = {"long_url": "https://example.com/of-it", "slug": f"s{secrets.token_hex(6)}"}
    made = second.post(LINKS, json={**body, "domain": host})
    assert made.status_code == 201, made.text
    assert first.post(LINKS, json={**body, "long_url": "https://example.com/default"}).status_code == 201
    path, at = f"/{body['slug']}", {"domain": host}
    site.see(path, 302, host)

    def see_target(at_host: str, target: str) -> None:
        for client in site.clients:
            eventually(
                lambda client=client: (
                    client.get(path, headers={"Host": at_host}).headers.get("location") == target
                ),
                2.5,
                f"{at_host}{path} leads to {target}",
            )

    see_target(host, "https://example.com/of-it")
    see_target("hop.example", "https://example.com/default")
    assert (
        first.patch(LINKS + path, params=at, json={"long_url": "https://example.com/new"}).status_code == 200
    )
    see_target(host, "https://example.com/new")
    see_target("hop.example", "https://example.com/default")
    assert second.delete(LINKS + path, params=at).status_code == 204
    site.see(path, 410, host)
    site.see(path, 302)
    assert second.delete(f"{DOMAINS}/{host}").status_code == 204
    # The host has the links of the default domain now.
    site.see(path, 302, host)


def test_pages_change_while_redis_and_rabbitmq_are_away(site):
    host = f"d{secrets.token_hex(6)}.example"
    assert site.clients[0].post(DOMAINS, json={"host": host}).status_code == 201
    site.see("/nothing", 404, host)
    site.redis.kill()
    site.rabbitmq.kill()
    try:
        page = {"not_found_url": "https://example.com/404"}
        assert site.clients[0].patch(f"{DOMAINS}/{host}", json=page).status_code == 200
        site.see("/nothing", 302, host)
    finally:
        site.redis.start()
        site.rabbitmq.start()
    eventually(site.all_well, 40, "both are back")


def test_gateway_that_starts_without_postgresql_knows_blocks_and_domains(site, tmp_path):
    domain = f"d{secrets.token_hex(6)}.example"
    assert site.clients[0].post(DOMAINS, json={"host": domain}).status_code == 201
    own = site.clients[0].post(LINKS, json={"long_url": "https://example.com/own", "domain": domain}).json()
    site.see(f"/{own['slug']}", 302, domain)
    host, path = site.link()
    _, other = site.link()
    site.block(host)
    site.see(path, 451)
    # Redis has both, and PostgreSQL is away.
    eventually(lambda: len(site.redis.values("hg:link:*")) >= 2, 10, "Redis holds the links")
    gateway = site.gateways[0]
    gateway.stop()
    site.postgres.kill()
    try:
        gateway.start()
        client = site.clients[0]
        eventually(lambda: client.get(other).status_code == 302, 10, "copies of Redis are served")
        assert client.get(path).status_code == 451
        assert client.get(f"/{own['slug']}", headers={"Host": domain}).status_code == 302
    finally:
        site.postgres.start()
    eventually(site.all_well, 40, "PostgreSQL is back")
    site.see(path, 451)
