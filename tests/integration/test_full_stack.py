"""
Two gateways and a worker on real PostgreSQL, Redis and RabbitMQ.

After each test, every acknowledged change is stored and served by both gateways, cached entries
equal the stored state, and outbox, queues and dead letters are empty.
"""

from __future__ import annotations

import asyncio
import csv
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.domain.target import canonical
from app.wire import DEAD_QUEUE, cache_key, decode_resolution
from tests.budgets import examples
from tests.contract.postgres_sessions import open_connected
from tests.servers.hopgate import Gateway, Worker, eventually, hopgate, make_key
from tests.servers.ports import free_ports
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS = "/api/v1/links"


class Stack:
    """Two gateways and a worker, with access to the store, the cache and the queues."""

    def __init__(self, settings, gateways, worker, redis_server) -> None:
        self.settings = settings
        self.gateways = gateways
        self.worker = worker
        self._redis = redis_server

    def outbox_rows(self) -> int:
        return asyncio.run(self._with_store(lambda store: store.outbox_depth())).rows

    def queue_depths(self) -> dict[str, int]:
        from app.adapters.rabbitmq.bus import RabbitBus

        async def ask() -> dict[str, int]:
            bus = RabbitBus(self.settings["HOPGATE_AMQP_URL"])
            bus.start()
            try:
                async with asyncio.timeout(10):
                    while True:
                        try:
                            return dict(await bus.depths())
                        except Unavailable:  # not connected yet
                            await asyncio.sleep(0.01)
            finally:
                await bus.aclose()

        return asyncio.run(ask())

    def stored(self, slugs: list[str]):
        async def ask(store):
            found = {}
            for start in range(0, len(slugs), 1000):
                found.update(await store.get_many([Slug(slug) for slug in slugs[start : start + 1000]]))
            return found

        return asyncio.run(self._with_store(ask))

    def cached(self, slug: str) -> Resolution | None:
        value = self._redis.command("GET", cache_key(Slug(slug)))
        return decode_resolution(Slug(slug), value) if isinstance(value, bytes) else None

    async def _with_store(self, work):
        store = await open_connected(self.settings["HOPGATE_DATABASE_URL"])
        try:
            return await work(store)
        finally:
            await store.aclose()

    def drain(self) -> None:
        """Wait until every change has reached the cache. Each question opens a connection."""
        eventually(lambda: self.outbox_rows() == 0, 60, "the outbox is empty", every=0.2)
        eventually(lambda: not any(self.queue_depths().values()), 30, "the queues are empty", every=0.2)

    def check_ledger(self, slugs: list[str]) -> None:
        """Assert that *slugs* are cached as stored, and that outbox and all queues are empty."""
        links = self.stored(slugs)
        assert set(links) == set(slugs)
        stale = [
            slug for slug in slugs if (held := self.cached(slug)) and held != Resolution.of(links[Slug(slug)])
        ]
        assert stale == []
        assert self.outbox_rows() == 0
        depths = self.queue_depths()
        assert depths[DEAD_QUEUE] == 0
        assert not any(depths.values())


@pytest.fixture(scope="module")
def stack(postgres, redis_server, rabbitmq, tmp_path_factory) -> Iterator[Stack]:
    settings = stack_settings(postgres, redis_server, rabbitmq)
    directory = tmp_path_factory.mktemp("stack")
    with ExitStack() as running:
        gateways = [running.enter_context(Gateway(settings, directory)) for _ in range(2)]
        worker = running.enter_context(Worker(settings, directory))
        yield Stack(settings, gateways, worker, redis_server)


@pytest.fixture(scope="module")
def clients(stack: Stack) -> Iterator[list[httpx.Client]]:
    """One client for each gateway, with the same key."""
    headers = {"Authorization": f"Bearer {make_key(stack.settings)}"}
    with ExitStack() as opened:
        yield [
            opened.enter_context(httpx.Client(base_url=gateway.url, headers=headers))
            for gateway in stack.gateways
        ]


def real_urls(count: int) -> list[str]:
    """Return URLs as people have them: from the sample that ships with the tests."""
    lines = (Path(__file__).parents[1] / "data" / "urls.txt").read_text().splitlines()
    return lines[:count]


def test_imported_urls_redirect_byte_exact_everywhere(stack, clients, tmp_path):
    file, output = tmp_path / "urls.txt", tmp_path / "links.csv"
    urls = real_urls(examples(400))
    file.write_text("\n".join(urls))

    options = ("--output", str(output), "--allow-refused")
    done = hopgate(stack.settings, "links", "import", str(file), *options, timeout=120)
    assert done.returncode == 0, done.stderr
    stack.drain()

    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert len(rows) > 0.95 * len(urls)
    for row in rows:
        expected = canonical(urls[int(row["line"]) - 1], own_hosts=())
        for client in clients:
            answer = client.get(f"/{row['slug']}")
            assert answer.status_code == 302
            assert answer.headers["location"] == expected
    slugs = [row["slug"] for row in rows]
    stack.check_ledger(slugs)
    assert all(stack.cached(slug) for slug in random.Random(1).sample(slugs, 100))


def test_new_link_redirects_on_the_other_gateway(stack, clients):
    """Also if the other gateway has just answered 404 for it."""
    one, other = clients
    slugs = []
    for i in range(30):
        slug = f"fresh-{i}"
        assert other.get(f"/{slug}").status_code == 404
        assert one.post(LINKS, json={"long_url": f"https://example.com/{i}", "slug": slug}).status_code == 201
        eventually(lambda s=slug: other.get(f"/{s}").status_code == 302, 2.5, f"{slug} is visible")
        slugs.append(slug)
    stack.drain()
    stack.check_ledger(slugs)


def test_edit_and_removal_reach_the_other_gateway(stack, clients):
    one, other = clients
    link = one.post(LINKS, json={"long_url": "https://example.com/old"}).json()
    path = f"/{link['slug']}"
    assert other.get(path).headers["location"] == "https://example.com/old"

    one.patch(LINKS + path, json={"long_url": "https://example.com/new"})
    eventually(
        lambda: other.get(path).headers["location"] == "https://example.com/new", 2.5, "the edit is visible"
    )
    one.delete(LINKS + path)
    eventually(lambda: other.get(path).status_code == 410, 2.5, "the removal is visible")

    stack.drain()
    stack.check_ledger([link["slug"]])
    assert stack.cached(link["slug"]).long_url is None


def test_invalidation_repairs_a_wrong_cache_entry(stack, clients):
    one, other = clients
    link = one.post(LINKS, json={"long_url": "https://example.com/true"}).json()
    stack.drain()
    stack._redis.command("SET", cache_key(Slug(link["slug"])), b'1|{"url":"https://evil.example/"}')

    one.post("/api/v1/cache/invalidate", json={"slugs": [link["slug"]]})

    eventually(
        lambda: other.get(f"/{link['slug']}").headers["location"] == "https://example.com/true",
        5,
        "the cache entry is repaired",
    )
    stack.drain()
    stack.check_ledger([link["slug"]])


def test_revoked_key_is_refused_everywhere(stack, clients):
    key = make_key(stack.settings, "links:read")
    headers = {"Authorization": f"Bearer {key}"}
    assert [client.get(LINKS, headers=headers).status_code for client in clients] == [200, 200]

    assert hopgate(stack.settings, "keys", "revoke", key.split("_")[1]).returncode == 0

    eventually(
        lambda: [client.get(LINKS, headers=headers).status_code for client in clients] == [401, 401],
        5,
        "the key is refused",
    )


def test_changes_without_a_worker_arrive_later(stack, clients):
    one, other = clients
    stack.worker.kill()
    made = [one.post(LINKS, json={"long_url": f"https://example.com/w{i}"}).json()["slug"] for i in range(50)]
    assert all(other.get(f"/{slug}").status_code == 302 for slug in made)
    for slug in made[:25]:
        one.patch(f"{LINKS}/{slug}", json={"long_url": "https://example.com/edited"})
    # Without a worker, the other gateway serves its L1 entry until it expires after two seconds.
    for slug in made[:25]:
        eventually(
            lambda s=slug: other.get(f"/{s}").headers["location"] == "https://example.com/edited",
            5,
            "the edit is visible",
        )

    stack.worker.start()

    stack.drain()
    stack.check_ledger(made)
    assert [stack.cached(slug).version for slug in made] == [2] * 25 + [1] * 25


def test_doctor_reports_a_healthy_stack(stack):
    bind = f"127.0.0.1:{stack.gateways[0].port}"
    done = hopgate({**stack.settings, "HOPGATE_BIND": bind}, "doctor")

    assert done.returncode == 0, done.stdout
    assert "breakers   all closed" in done.stdout


def test_doctor_without_a_gateway_names_the_address(stack):
    done = hopgate({**stack.settings, "HOPGATE_BIND": f"127.0.0.1:{free_ports(1)[0]}"}, "doctor")

    assert done.returncode == 0, done.stdout
    assert "no gateway answers on" in done.stdout


def test_sigterm_stops_gateways_and_worker_cleanly(stack, clients):
    """No acknowledged write is lost when all processes stop at once."""
    made = [
        clients[0].post(LINKS, json={"long_url": f"https://example.com/s{i}"}).json()["slug"]
        for i in range(20)
    ]

    codes = [process.stop() for process in (*stack.gateways, stack.worker)]

    assert codes == [0, 0, 0]
    assert set(stack.stored(made)) == set(made)
    stack.worker.start()
    stack.drain()
    stack.check_ledger(made)
