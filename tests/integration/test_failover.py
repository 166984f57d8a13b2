"""A failover to a standby that lacks the last changes: caches ahead of the new primary must lose."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TypeVar

import httpx
import psycopg
import pytest

from app.adapters.redis.cache import RedisCache
from app.domain.link import Resolution, Slug
from tests.servers.hopgate import Gateway, Worker, eventually, make_key
from tests.servers.postgres import PostgresReplica, PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
T = TypeVar("T")
LINKS = "/api/v1/links"
TRUE, LOST = "https://example.com/true", "https://example.com/lost"
# An epoch is looked at every second; a session with the old primary has to fail first.
SOON_S = 5.0


class Site:
    """A primary and an asynchronous standby, both in the URL; two gateways and a worker."""

    def __init__(self, running: ExitStack, directory, rabbitmq: PrivateRabbit) -> None:
        self.primary = running.enter_context(PrivatePostgres())
        self.redis = running.enter_context(PrivateRedis())
        self.settings = stack_settings(self.primary, self.redis, rabbitmq)
        self.standby = running.enter_context(PostgresReplica(self.primary))
        name = self.settings["HOPGATE_DATABASE_URL"].rpartition("/")[2]
        self.truth = self.standby.url(name)
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        self.settings["HOPGATE_DATABASE_URL"] = f"postgresql://postgres@{hosts}/{name}"
        self.key = make_key(self.settings)
        self.gateways = [running.enter_context(Gateway(self.settings, directory)) for _ in range(2)]
        running.enter_context(Worker(self.settings, directory))
        headers = {"Authorization": f"Bearer {self.key}"}
        self.apis = [
            running.enter_context(httpx.Client(base_url=gateway.url, headers=headers, timeout=10))
            for gateway in self.gateways
        ]

    def create(self, slug: str) -> None:
        assert self.apis[0].post(LINKS, json={"slug": slug, "long_url": TRUE}).status_code == 201

    def edit(self, slug: str, url: str) -> int:
        return self.apis[0].patch(f"{LINKS}/{slug}", json={"long_url": url}).status_code

    def shown(self, gateway: int, slug: str) -> str | int:
        answer = self.apis[gateway].get(f"/{slug}")
        return answer.headers.get("location", answer.status_code)

    def with_cache(self, work: Callable[[RedisCache], Awaitable[T]]) -> T:
        async def call() -> T:
            cache = RedisCache(self.redis.url, timeout_s=20)
            try:
                return await work(cache)
            finally:
                await cache.aclose()

        return asyncio.run(call())

    def cached(self, *slugs: str) -> Mapping[Slug, Resolution]:
        return self.with_cache(lambda cache: cache.get_many([Slug(slug) for slug in slugs]))

    def versions(self, *slugs: str) -> list[int]:
        held = self.cached(*slugs)
        return [held[Slug(slug)].version if Slug(slug) in held else -1 for slug in slugs]

    def replayed(self) -> bool:
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:
            [lag] = connection.execute(
                "SELECT pg_current_wal_lsn() - replay_lsn FROM pg_stat_replication"
            ).fetchone() or [1]
            return lag == 0


@pytest.fixture
def site(tmp_path, rabbitmq: PrivateRabbit) -> Iterator[Site]:
    with ExitStack() as running:
        yield Site(running, tmp_path, rabbitmq)


def test_changes_that_the_standby_lacks_are_shown_by_no_gateway(site: Site):
    kept = ["edited", "removed", "edited-unseen", "removed-unseen"]
    for slug in kept:
        site.create(slug)
    eventually(site.replayed, what="a standby without a lag")

    # What the standby does not receive.
    site.standby.stop()
    for slug in kept:
        if slug.startswith("edited"):
            assert [site.edit(slug, f"{LOST}/{n}") for n in range(3)] == [200] * 3
        else:
            assert site.apis[0].delete(f"{LINKS}/{slug}").status_code == 204
    site.create("created")
    assert [site.shown(gateway, "edited") for gateway in (0, 1)] == [f"{LOST}/2"] * 2
    assert [site.shown(gateway, "removed") for gateway in (0, 1)] == [410] * 2
    assert [site.shown(gateway, "created") for gateway in (0, 1)] == [TRUE] * 2
    eventually(lambda: site.versions(*kept, "created") == [4, 2, 4, 2, 1], what="changes in Redis")
    away = site.gateways[1]
    lost = site.cached("edited-unseen", "removed-unseen")
    site.primary.kill()
    site.standby.start()
    site.standby.promote()

    for gateway in (0, 1):
        eventually(lambda g=gateway: site.shown(g, "edited") == TRUE, SOON_S, f"edited, gateway {gateway}")
        eventually(lambda g=gateway: site.shown(g, "removed") == TRUE, SOON_S, f"removed, gateway {gateway}")
        eventually(lambda g=gateway: site.shown(g, "created") == 404, SOON_S, f"created, gateway {gateway}")
    eventually(lambda: site.versions("edited", "removed") == [1, 1], what="the truth in Redis")

    # A gateway that was away meanwhile finds Redis as the lost history left it.
    away.stop()
    site.with_cache(lambda cache: cache.put(list(lost.values())))  # an event may have repaired it
    assert site.versions("edited-unseen", "removed-unseen") == [4, 2]
    away.start()
    assert [site.shown(1, slug) for slug in ("edited-unseen", "removed-unseen")] == [TRUE] * 2

    # New changes get versions that lost ones had.
    eventually(lambda: site.edit("edited", f"{TRUE}/2") == 200, what="a write")
    eventually(lambda: site.shown(1, "edited") == f"{TRUE}/2", SOON_S, "the new edit")
    eventually(lambda: site.versions("edited") == [2], what="the new edit in Redis")
    with psycopg.connect(site.truth) as connection:
        rows = connection.execute("SELECT version, long_url FROM links WHERE slug = 'edited'").fetchall()
    assert rows == [(2, f"{TRUE}/2")]
