"""Gateways and a worker on a Redis primary that sentinels watch: once killed, it is replaced."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.servers.hopgate import Gateway, Worker, eventually, hopgate, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.redis_sentinel import PrivateSentinels

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS = "/api/v1/links"
# A primary counts as lost after 0.7 s; the sentinels then elect one of themselves.
SOON_S = 12.0


class Site:
    """Two gateways and a worker, a Redis primary with a replica, and three sentinels."""

    def __init__(
        self, running: ExitStack, directory, postgres: PrivatePostgres, rabbitmq: PrivateRabbit
    ) -> None:
        self.redis = running.enter_context(PrivateSentinels())
        self.settings = {
            "HOPGATE_DATABASE_URL": postgres.create_database(),
            "HOPGATE_REDIS_URL": self.redis.url,
            "HOPGATE_AMQP_URL": rabbitmq.add_vhost(f"hopgate-{secrets.token_hex(4)}"),
            "HOPGATE_BASE_URL": "http://hop.example",
            "HOPGATE_DRAIN_DELAY_S": "0",
            "HOPGATE_LIMIT_REDIRECT": "1000000/s burst 1000000",
            "HOPGATE_LIMIT_NOT_FOUND": "1000000/s burst 1000000",
            "HOPGATE_LIMIT_API": "1000000/s burst 1000000",
            "HOPGATE_LIMIT_CREATE": "80/d",
        }
        self.key = make_key(self.settings)
        self.gateways = [running.enter_context(Gateway(self.settings, directory)) for _ in range(2)]
        running.enter_context(Worker(self.settings, directory))
        headers = {"Authorization": f"Bearer {self.key}"}
        self.apis = [
            running.enter_context(httpx.Client(base_url=gateway.url, headers=headers, timeout=10))
            for gateway in self.gateways
        ]

    def shown(self, gateway: int, slug: str) -> str | int:
        answer = self.apis[gateway].get(f"/{slug}")
        return answer.headers.get("location", answer.status_code)

    def edit(self, gateway: int, slug: str, number: int) -> None:
        answer = self.apis[gateway].patch(f"{LINKS}/{slug}", json={"long_url": target(number)})
        assert answer.status_code == 200, answer.text

    def cached(self, server: PrivateRedis) -> int:
        return len(server.values("hg:link:*"))


def target(number: int) -> str:
    return f"https://example.com/{number}"


@pytest.fixture
def site(tmp_path, postgres, rabbitmq) -> Iterator[Site]:
    with ExitStack() as running:
        yield Site(running, tmp_path, postgres, rabbitmq)


def test_killed_primary_is_replaced(site: Site):
    slugs = [f"link{number}" for number in range(10)]
    for slug in slugs:
        assert site.apis[0].post(LINKS, json={"slug": slug, "long_url": target(0)}).status_code == 201
    old = site.redis.primary
    eventually(lambda: site.cached(old) >= 10, what="links in Redis")

    old.kill()
    number, errors, deadline = 0, [], time.monotonic() + 60
    while True:  # edits and visits go on throughout, each seen on both gateways
        number += 1
        for slug in slugs:
            site.edit(number % 2, slug, number)
        for gateway in (0, 1):
            errors += [
                (gateway, slug, shown)
                for slug in slugs
                if (shown := site.shown(gateway, slug)) not in (target(number), target(number - 1))
            ]
        if site.redis.sentinels[0].primary()["port"] != old.port and number >= 20:
            break
        assert time.monotonic() < deadline
    new = site.redis.await_another(old)

    assert not errors
    for gateway in (0, 1):
        eventually(
            lambda g=gateway: {site.shown(g, slug) for slug in slugs} == {target(number)},
            SOON_S,
            f"the last edits on gateway {gateway}",
        )
    last = target(number).encode()
    eventually(
        lambda: sum(last in value for value in new.values("hg:link:*").values()) == len(slugs),
        SOON_S,
        "the last edit of each link in the new primary",
    )
    ready = site.apis[0].get("/readyz").json()
    eventually(
        lambda: site.apis[0].get("/readyz").json()["dependencies"]["cache"] == "ok", SOON_S, f"{ready}"
    )
    done = hopgate(site.settings, "doctor")
    assert done.returncode == 0, done.stdout
    assert hopgate(site.settings, "check").returncode == 0


def test_limits_are_shared_through_the_new_primary(site: Site):
    """What is counted stands in the new primary, and goes on from what it knew."""

    def created(gateway: int, count: int) -> int:
        urls = [{"long_url": target(number)} for number in range(count)]
        return sum(site.apis[gateway].post(LINKS, json=url).status_code == 201 for url in urls)

    before = created(0, 30)
    assert before == 30
    time.sleep(1)  # leases end, and what was admitted is debited
    old = site.redis.primary
    old.command("WAIT", 1, 5000)
    old.kill()
    new = site.redis.await_another(old)
    counted = _counted(new)
    assert counted
    after = 0
    for _ in range(30):  # each lease takes a moment
        after += sum(created(gateway, 3) for gateway in (0, 1))
        time.sleep(0.2)

    assert before + after >= 50
    assert _counted(new) != counted
    # An eighth of the burst may be admitted by each process before its first lease, before and after.
    assert before + after <= 80 + 4 * 10


def test_gateway_starts_without_sentinels_and_finds_them_later(site: Site, tmp_path):
    settings = {**site.settings, "HOPGATE_LIMIT_CREATE": "1000/s burst 1000"}
    for sentinel in site.redis.sentinels:
        sentinel.pause()
    try:
        with Gateway(settings, tmp_path) as gateway:
            headers = {"Authorization": f"Bearer {site.key}"}
            assert (
                httpx.post(
                    f"{gateway.url}{LINKS}", json={"slug": "early", "long_url": target(1)}, headers=headers
                ).status_code
                == 201
            )
            assert httpx.get(f"{gateway.url}/early").headers["location"] == target(1)
            for sentinel in site.redis.sentinels:
                sentinel.resume()
            eventually(
                lambda: httpx.get(f"{gateway.url}/readyz").json()["dependencies"]["cache"] == "ok",
                SOON_S,
                "the cache",
            )
    finally:
        for sentinel in site.redis.sentinels:
            sentinel.resume()


def _counted(server: PrivateRedis) -> dict[bytes, object]:
    """Return what *server* holds of the limit of creates."""
    keys = server.command("KEYS", "hg:limit:create:*")
    assert isinstance(keys, list)
    return {key: server.command("DUMP", key) for key in keys}
