"""Clicks over HTTP and through real processes: shown by the API, exact through outages and stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.service.clicks import FLUSH_INTERVAL_S
from tests.servers.hopgate import UNLIMITED, Gateway, Worker, eventually, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

LINKS = "/api/v1/links"
# What a process that is killed may take with it: see docs/operations.md.
PUBLISH_S = 2.0
LOSS_WINDOW_S = FLUSH_INTERVAL_S + PUBLISH_S


def create(api: httpx.Client) -> str:
    answer = api.post(LINKS, json={"long_url": "https://example.com/"})
    assert answer.status_code == 201, answer.text
    return answer.json()["slug"]


def visits(api: httpx.Client, slug: str) -> int:
    return api.get(f"{LINKS}/{slug}").json()["visits"]


def visit(client: httpx.Client, slug: str, times: int) -> None:
    for _ in range(times):
        assert client.get(f"/{slug}").status_code == 302


# --- embedded --------------------------------------------------------------------------


def test_clicks_are_counted_without_a_new_version(api, visitor):
    slug = create(api)
    made = api.get(f"{LINKS}/{slug}")
    assert made.json()["visits"] == 0

    visit(visitor, slug, 30)
    for _ in range(5):
        assert visitor.head(f"/{slug}").status_code == 302

    eventually(lambda: visits(api, slug) == 30, what="all are counted")
    now = api.get(f"{LINKS}/{slug}")
    assert now.headers["etag"] == made.headers["etag"]
    assert {**now.json(), "visits": 0} == made.json()


def test_stats_are_by_the_hour(api, visitor):
    slug = create(api)
    visit(visitor, slug, 3)
    eventually(lambda: visits(api, slug) == 3, what="all are counted")

    stats = api.get(f"{LINKS}/{slug}/stats").json()

    assert stats["total"] == 3
    assert len(stats["hours"]) == 24
    assert sum(hour["clicks"] for hour in stats["hours"][-2:]) == 3  # an hour may have ended meanwhile
    first, until = (datetime.fromisoformat(stats[name]) for name in ("since", "until"))
    assert until - first == timedelta(hours=24)
    assert [datetime.fromisoformat(hour["hour"]) for hour in stats["hours"]] == [
        first + n * timedelta(hours=1) for n in range(24)
    ]
    assert until > datetime.now(UTC)


@pytest.mark.parametrize(
    "query",
    [
        *("since=yesterday", "since=", "since=2030-01-31T12:00:00", "until=99999-01-01T00:00:00Z"),
        *("since=2030-01-31T12:00:00Z&until=2030-01-31T12:00:00Z", "since=2020-01-01T00:00:00Z"),
        *("until=0001-01-01T00:00:00%2B14:00", "until=9999-12-31T23:59:59.999999-14:00", "since=%00"),
    ],
)
def test_invalid_range_is_refused(api, query):
    answer = api.get(f"{LINKS}/{create(api)}/stats?{query}")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] in {"since", "until"}


def test_stats_of_unknown_and_removed_links(api, visitor):
    slug = create(api)
    assert api.delete(f"{LINKS}/{slug}").status_code == 204

    assert api.get(f"{LINKS}/{slug}/stats").status_code == 410
    assert api.get(f"{LINKS}/no-such-link/stats").status_code == 404
    assert api.get(f"{LINKS}/no.slug/stats").status_code == 404
    assert visitor.get(f"{LINKS}/{slug}/stats").status_code == 401


def test_stats_need_the_scope_to_read(embedded):
    for scope, status in (("links:read", 404), ("links:write", 403)):
        headers = {"Authorization": f"Bearer {make_key(embedded.settings, scope)}"}
        assert httpx.get(f"{embedded.url}{LINKS}/nope-nope/stats", headers=headers).status_code == status


@pytest.mark.parametrize("lane", ["hot", "cold"])
def test_graceful_stop_loses_no_click(tmp_path, lane):
    """SIGTERM right after the last redirect; the next start shows every click."""
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **UNLIMITED}
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    gateway = Gateway(settings, tmp_path)
    with gateway, httpx.Client(base_url=gateway.url, headers=headers) as api:
        slugs = [create(api) for _ in range(1 if lane == "hot" else 40)]
        for slug in slugs:
            visit(api, slug, 40 // len(slugs))

    with gateway, httpx.Client(base_url=gateway.url, headers=headers) as api:
        assert sum(visits(api, slug) for slug in slugs) == 40


# --- on services -----------------------------------------------------------------------


class World:
    def __init__(self, rabbitmq, gateway, worker, api) -> None:
        self.rabbitmq = rabbitmq
        self.gateway = gateway
        self.worker = worker
        self.api = api

    def all_well(self) -> bool:
        return set(self.api.get("/readyz").json()["dependencies"].values()) == {"ok"}

    def kept(self) -> list[str]:
        """The files of clicks that the broker has not confirmed."""
        folder = self.gateway._log.parent / f"data-{self.gateway.port}" / "clicks"
        return [path.name for path in folder.glob("*") if path.stat().st_size]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Private servers: the broker is killed."""
    directory = tmp_path_factory.mktemp("clicks")
    with ExitStack() as running:
        postgres = running.enter_context(PrivatePostgres())
        redis, rabbitmq = running.enter_context(PrivateRedis()), running.enter_context(PrivateRabbit())
        settings = stack_settings(postgres, redis, rabbitmq)
        gateway = running.enter_context(Gateway(settings, directory))
        worker = running.enter_context(Worker(settings, directory))
        headers = {"Authorization": f"Bearer {make_key(settings)}"}
        api = running.enter_context(httpx.Client(base_url=gateway.url, headers=headers, timeout=10))
        world = World(rabbitmq, gateway, worker, api)
        eventually(world.all_well, 20, "everything is connected")
        yield world


@pytest.mark.services
@pytest.mark.timeout(180)
def test_broker_outage_and_restart_keep_clicks_exact(world):
    slug = create(world.api)
    visit(world.api, slug, 50)
    world.rabbitmq.kill()
    visit(world.api, slug, 50)
    eventually(world.kept, 10, "clicks are kept on disk")
    visit(world.api, slug, 50)
    assert world.gateway.stop() == 0
    assert world.kept()
    world.gateway.start()
    visit(world.api, slug, 50)

    world.rabbitmq.start()
    eventually(world.all_well, 60, "RabbitMQ is back")

    eventually(lambda: visits(world.api, slug) == 200, 30, "all are counted")
    eventually(lambda: not world.kept(), 20, "nothing is kept any more")
    # Whatever may still come is flushed by a stop, and in front of the last visit.
    assert world.gateway.stop() == 0
    world.gateway.start()
    visit(world.api, slug, 1)
    eventually(lambda: visits(world.api, slug) > 200, 20, "the last one is counted")
    assert visits(world.api, slug) == 201


@pytest.mark.services
@pytest.mark.timeout(180)
def test_killed_gateway_loses_its_last_clicks_only(world):
    slug = create(world.api)
    eventually(world.all_well, 20, "everything is connected")
    served: list[float] = []
    end = time.monotonic() + LOSS_WINDOW_S + 2
    while time.monotonic() < end:
        visit(world.api, slug, 1)
        served.append(time.monotonic())

    world.gateway.kill()
    killed = time.monotonic()
    world.gateway.start()

    safe = sum(at < killed - LOSS_WINDOW_S for at in served)
    assert safe > 0
    eventually(lambda: visits(world.api, slug) >= safe, 20, "what was flushed is counted")
    assert visits(world.api, slug) <= len(served)


@pytest.mark.services
@pytest.mark.timeout(180)
def test_clicks_wait_for_a_worker(world):
    slug = create(world.api)
    world.worker.kill()
    visit(world.api, slug, 20)
    assert world.gateway.stop() == 0  # flushed
    world.gateway.start()
    assert visits(world.api, slug) == 0

    world.worker.start()

    eventually(lambda: visits(world.api, slug) == 20, 20, "all are counted")
