"""A ledger of events over PostgreSQL, Redis and RabbitMQ: what was acknowledged is delivered."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.integration.front_gateway import ALONE, FRONT
from tests.servers.hooks import HookServer, verified
from tests.servers.hopgate import Gateway, Worker, eventually, hopgate, make_key
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS, HOOKS = "/api/v1/links", "/api/v1/webhooks"
_SECONDS = 15


class Site:
    """Servers, two gateways, two workers and a client of each gateway."""

    def __init__(self, running: ExitStack, directory, rabbitmq: PrivateRabbit) -> None:
        self.postgres = running.enter_context(PrivatePostgres())
        self.redis = running.enter_context(PrivateRedis())
        self.rabbitmq = rabbitmq
        self.settings = {
            **stack_settings(self.postgres, self.redis, self.rabbitmq),
            "HOPGATE_WEBHOOKS_HTTP": "on",
            "HOPGATE_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "HOPGATE_WEBHOOK_RETRIES": "1s 1s 1s 2s 2s 2s 5s 5s 5s 5s",
        }
        assert hopgate(self.settings, "migrate").returncode == 0
        self.headers = {"Authorization": f"Bearer {make_key(self.settings)}"}
        self.gateways = [
            running.enter_context(Gateway({**self.settings, **more}, directory)) for more in (ALONE, FRONT)
        ]
        folders = [directory / name for name in ("worker-1", "worker-2")]
        for folder in folders:
            folder.mkdir()
        self.workers = [running.enter_context(Worker(self.settings, folder)) for folder in folders]
        self.api = running.enter_context(self.client(self.gateways[0]))

    def client(self, gateway: Gateway) -> httpx.Client:
        return httpx.Client(base_url=gateway.url, headers=self.headers, timeout=10)


@pytest.fixture(scope="module")
def site(tmp_path_factory, rabbitmq) -> Iterator[Site]:
    with ExitStack() as running:
        yield Site(running, tmp_path_factory.mktemp("hooks-stack"), rabbitmq)
    rabbitmq.start()  # where the test failed while it was away


class Changes(threading.Thread):
    """
    Changes links at one gateway until it is stopped, and keeps what was acknowledged.

    A request without an answer may have taken effect: its link is left as it is.
    """

    def __init__(self, site: Site, gateway: Gateway, name: str) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._gateway = gateway
        self._prefix = name
        self.ends = threading.Event()
        self.acknowledged: dict[str, int] = {}
        self.unknown: set[str] = set()

    def run(self) -> None:
        drawn = random.Random(self._prefix)
        with self._site.client(self._gateway) as client:
            number = 0
            while not self.ends.wait(0.05):
                number += 1
                known = [slug for slug in self.acknowledged if slug not in self.unknown]
                slug = drawn.choice(known) if known and drawn.random() < 0.7 else f"{self._prefix}-{number}"
                try:
                    if slug in self.acknowledged:
                        answer = client.patch(f"{LINKS}/{slug}", json={"title": str(number)})
                    else:
                        body = {"long_url": "https://example.com/", "slug": slug}
                        answer = client.post(LINKS, json=body)
                except httpx.HTTPError:
                    self.unknown.add(slug)
                    continue
                if answer.is_success:
                    self.acknowledged[slug] = answer.json()["version"]
                else:
                    self.unknown.add(slug)


class Follower(threading.Thread):
    """Follows the stream of events, at the other gateway when one ends it, from the last id that it has."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._last_id = "0-00000000"
        self.ends = threading.Event()
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.streams = 0

    def run(self) -> None:
        while not self.ends.is_set():
            gateway = self._site.gateways[self.streams % 2]
            self.streams += 1
            with suppress(httpx.HTTPError), self._site.client(gateway) as client:
                self._follow(client)
            self.ends.wait(0.2)

    def _follow(self, client: httpx.Client) -> None:
        headers = {"Last-Event-ID": self._last_id}
        # Longer than two heartbeats apart.
        with client.stream("GET", "/api/v1/events", headers=headers, timeout=25) as answer:
            if answer.status_code != 200:
                return
            event: dict[str, str] = {}
            for line in answer.iter_lines():
                if self.ends.is_set():
                    return
                name, _, value = line.partition(": ")
                if line:
                    event[name] = value
                    continue
                self._take(event)
                event = {}

    def _take(self, event: dict[str, str]) -> None:
        assert event.get("event") != "reset", "the stream lost its place"
        if "data" in event:
            link = json.loads(event["data"])["data"]
            self.seen[link["slug"]].append(link["version"])
        self._last_id = event.get("id", self._last_id)


def test_nothing_acknowledged_is_lost_and_links_stay_in_order(site):
    """By webhooks and by the stream of events, through killed workers and gateways, and a broker away."""
    follower = Follower(site)
    follower.start()
    with HookServer(lambda _: 500 if random.random() < 0.05 else 204) as server:
        webhook = site.api.post(HOOKS, json={"url": server.url}).json()
        writers = [Changes(site, gateway, f"w{n}") for n, gateway in enumerate(site.gateways)]
        for writer in writers:
            writer.start()
        time.sleep(_SECONDS / 5)
        site.rabbitmq.stop()
        time.sleep(_SECONDS / 5)
        site.workers[0].kill()
        time.sleep(_SECONDS / 5)
        site.gateways[0].kill()
        site.gateways[0].start()
        site.rabbitmq.start()
        site.workers[0].start()
        time.sleep(_SECONDS / 5)
        site.workers[1].kill()
        time.sleep(_SECONDS / 5)
        for writer in writers:
            writer.ends.set()
            writer.join()

        expected = {slug: version for writer in writers for slug, version in writer.acknowledged.items()}
        unknown = {slug for writer in writers for slug in writer.unknown}

        def is_whole() -> bool:
            seen = server.by_slug()
            return all(
                {1, *range(2, version + 1)} <= {number for _, number in seen.get(slug, [])}
                for slug, version in expected.items()
            )

        # Leases of the killed workers end after a minute and a half.
        eventually(is_whole, 110, "every acknowledged change", every=0.5)
        eventually(
            lambda: all(version in follower.seen[slug] for slug, version in expected.items()),
            30,
            "every acknowledged change in the stream",
            every=0.5,
        )
        follower.ends.set()

    assert follower.streams > 1, "the gateway that was followed was killed"
    for slug, version in expected.items():
        # In order and without a gap; a change without an answer may be there as well.
        versions = list(dict.fromkeys(follower.seen[slug]))
        assert versions == list(range(1, max(version, len(versions)) + 1)), slug
    seen = server.by_slug()
    assert len(expected) > 20
    assert set(seen) <= set(expected) | unknown
    for slug, about in seen.items():
        versions = [version for _, version in about]
        assert versions == sorted(versions), slug
        assert about[0] == ("link.created", 1)
    for message in server.messages[:200]:
        verified(message, webhook["secret"])
    ids = {message.headers["webhook-id"] for message in server.messages}
    assert len(ids) == sum(len(about) for about in seen.values()), "one id for each event"
