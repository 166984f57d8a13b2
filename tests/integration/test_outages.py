"""
What the gateway promises while a dependency is away, one at a time.

The servers are this module's own: it kills them. Each story heals what it broke and ends with
everything acknowledged in place.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from app.service import l1_cache
from tests.servers.hopgate import Gateway, Worker, eventually, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS = "/api/v1/links"
NEW = {"long_url": "https://example.com/outage"}


class World:
    """Private servers, one gateway, one worker, and a client with a key."""

    def __init__(self, postgres, redis, rabbitmq, gateway, api) -> None:
        self.postgres = postgres
        self.redis = redis
        self.rabbitmq = rabbitmq
        self.gateway = gateway
        self.api = api

    def create(self) -> str:
        answer = self.api.post(LINKS, json=NEW)
        assert answer.status_code == 201, answer.text
        return f"/{answer.json()['slug']}"

    def status(self, path: str) -> int:
        return self.api.get(path).status_code

    def all_well(self) -> bool:
        """Every dependency answers, and every circuit breaker is closed."""
        shown = self.api.get("/readyz").json()
        return set(shown["dependencies"].values()) == {"ok"} and "open" not in shown["breakers"].values()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("outages")
    with ExitStack() as running:
        postgres = running.enter_context(PrivatePostgres())
        redis, rabbitmq = running.enter_context(PrivateRedis()), running.enter_context(PrivateRabbit())
        settings = stack_settings(postgres, redis, rabbitmq)
        gateway = running.enter_context(Gateway(settings, directory))
        running.enter_context(Worker(settings, directory))
        headers = {"Authorization": f"Bearer {make_key(settings)}"}
        api = running.enter_context(httpx.Client(base_url=gateway.url, headers=headers, timeout=10))
        world = World(postgres, redis, rabbitmq, gateway, api)
        eventually(world.all_well, 20, "everything is connected")
        yield world


def test_everything_works_without_redis(world):
    before = world.create()
    world.redis.kill()

    made = world.create()
    assert [world.status(before), world.status(made)] == [302, 302]
    assert world.api.patch(LINKS + made, json={"title": "x"}).status_code == 200
    eventually(lambda: world.api.get("/readyz").json()["status"] == "degraded", 30, "it is shown")
    assert world.api.get("/readyz").status_code == 200

    world.redis.start()
    eventually(world.all_well, 20, "Redis is back")
    assert world.status(made) == 302


def test_everything_works_without_rabbitmq(world):
    world.rabbitmq.kill()

    made = [world.create() for _ in range(5)]
    assert [world.status(path) for path in made] == [302] * 5
    assert (
        world.api.patch(LINKS + made[0], json={"long_url": "https://example.com/edited"}).status_code == 200
    )
    assert world.api.get(made[0]).headers["location"] == "https://example.com/edited"
    assert world.api.delete(LINKS + made[1]).status_code == 204
    assert world.status(made[1]) == 410

    world.rabbitmq.start()
    eventually(world.all_well, 60, "RabbitMQ is back")
    assert [world.status(path) for path in made] == [302, 410, 302, 302, 302]


def test_known_links_redirect_without_postgresql(world):
    """Never 404 for a link that may exist: only the store can prove that it does not."""
    made = world.create()
    assert world.status(made) == 302
    world.postgres.kill()

    try:
        assert world.status(made) == 302
        for answer in (
            world.api.get("/never-seen"),
            world.api.post(LINKS, json={"long_url": "https://example.com/"}),
            world.api.get(LINKS),
        ):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
    finally:
        world.postgres.start()

    eventually(world.all_well, 20, "PostgreSQL is back")
    # Once in some hundred runs, on a busy machine, the first one was refused with 503.
    eventually(lambda: world.status("/never-seen") == 404, 30, "links are looked up")
    eventually(lambda: world.api.post(LINKS, json=NEW).status_code == 201, 30, "links are made")
    assert world.status(world.create()) == 302


def test_l1_links_redirect_without_redis_and_postgresql(world):
    """For longer than L1 entries are fresh; removed links do not redirect."""
    known, removed = world.create(), world.create()
    assert [world.status(known), world.status(removed)] == [302, 302]
    assert world.api.delete(LINKS + removed).status_code == 204
    world.redis.kill()
    world.postgres.kill()

    try:
        until = time.monotonic() + 2 * l1_cache.TTL_S
        seen = set()
        while time.monotonic() < until:
            assert world.status(known) == 302
            seen.add(world.status(removed))
            time.sleep(0.2)
        assert 503 in seen
        assert seen <= {410, 503}
    finally:
        world.redis.start()
        world.postgres.start()

    eventually(world.all_well, 20, "both are back")
    eventually(lambda: [world.status(known), world.status(removed)] == [302, 410], 30, "links are looked up")


def test_silent_redis_delays_redirects_only(world):
    """Stopped, not dead: connections stay open without an answer."""
    made = world.create()
    world.redis.pause()
    try:
        assert world.status(made) == 302
        assert world.status(world.create()) == 302
    finally:
        world.redis.resume()
    eventually(world.all_well, 20, "Redis is back")
