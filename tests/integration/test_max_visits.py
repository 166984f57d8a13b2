"""A link with `max_visits` on the whole stack: visitors on all gateways, one of which is killed."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from app.ports import MAX_QUOTA_LEASE
from tests.faults.harness.http_client import HttpClient
from tests.servers.hopgate import Gateway, Worker, eventually, make_key
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS = "/api/v1/links"
VISITS = 200


@pytest.fixture(scope="module", params=["off", "on"], ids=["alone", "front"])
def settings(request, postgres, redis_server, rabbitmq) -> dict[str, str]:
    return {**stack_settings(postgres, redis_server, rabbitmq), "HOPGATE_FRONT": request.param}


@pytest.fixture(scope="module")
def gateways(settings, tmp_path_factory) -> Iterator[list[Gateway]]:
    directory = tmp_path_factory.mktemp("stack")
    with ExitStack() as running:
        running.enter_context(Worker(settings, directory))
        yield [running.enter_context(Gateway(settings, directory)) for _ in range(4)]


@pytest.fixture(scope="module")
def api(settings, gateways) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with httpx.Client(base_url=gateways[0].url, headers=headers) as client:
        yield client


def make(api: httpx.Client, visits: int = VISITS) -> str:
    made = api.post(LINKS, json={"long_url": "https://example.com/", "max_visits": visits})
    assert made.status_code == 201
    return made.json()["slug"]


class Visitors:
    """Visit a slug until it is gone, and count the redirects."""

    def __init__(self, *slugs: str) -> None:
        self.slugs = slugs
        self._lock = threading.Lock()
        self.redirects = 0
        self.others: set[int] = set()

    def visit(self, gateway: Gateway, at_most: int) -> bool:
        """Return whether it was gone within *at_most* visits."""
        with httpx.Client(base_url=gateway.url) as client:
            for number in range(at_most):
                slug = self.slugs[number % len(self.slugs)]
                try:
                    status = client.get(f"/{slug}").status_code
                except httpx.HTTPError:  # it was killed
                    return False
                if status == 410:
                    return True
                with self._lock:
                    self.redirects += status == 302
                    self.others |= {status} - {302}
        return False


def test_two_gateways_and_all_slugs_of_a_link_share_a_quota_exactly(api, gateways):
    """Also while the link gets another slug: leased visits come back to it."""
    slug, alias, new = make(api), f"alias-{secrets.token_hex(4)}", f"new-{secrets.token_hex(4)}"
    assert api.post(f"{LINKS}/{slug}/aliases", json={"slug": alias}).status_code == 200
    visitors = Visitors(slug, alias)

    with ThreadPoolExecutor(8) as pool:
        under_way = [pool.submit(visitors.visit, gateways[n % 2], VISITS // 16) for n in range(8)]
        renamed = api.post(f"{LINKS}/{slug}/rename", json={"slug": new})
        assert renamed.status_code == 200, renamed.text
        for visit in under_way:
            visit.result()

    def crowd() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: visitors.visit(gateways[n % 2], VISITS), range(8)))
        return visitors.redirects >= VISITS

    visitors.slugs = (new, slug, alias)
    eventually(crowd, 40, "every visit is spent")

    assert visitors.redirects == VISITS
    assert not visitors.others
    eventually(
        lambda: api.get(f"{LINKS}/{new}").json()["visits"] == VISITS, 20, "all visits are those of the link"
    )


def test_two_gateways_share_a_quota_exactly(api, gateways):
    """In the end: idle gateways return the visits that others could give."""
    visitors = Visitors(make(api))

    def crowd() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: visitors.visit(gateways[n % 2], VISITS), range(8)))
        return visitors.redirects >= VISITS

    eventually(crowd, 30, "every visit is spent")

    assert visitors.redirects == VISITS
    assert not visitors.others


def test_killed_gateway_loses_one_lease(api, gateways):
    visitors = Visitors(make(api))
    other, doomed, *_ = gateways
    with ThreadPoolExecutor(8) as pool:
        begun = [pool.submit(visitors.visit, gateway, 12) for gateway in (doomed, other) for _ in range(4)]
        eventually(lambda: visitors.redirects >= 30, 30, "both gateways give redirects")
        doomed.kill()
        assert [future.exception() for future in begun] == [None] * 8
    assert visitors.redirects < VISITS
    doomed.start()

    while not visitors.visit(other, VISITS):
        pass
    visitors.visit(doomed, VISITS)

    assert VISITS - MAX_QUOTA_LEASE <= visitors.redirects <= VISITS
    assert not visitors.others


def test_crowd_loses_one_lease_to_a_kill(api, gateways):
    visits, visitors, requests = 1000, 16, 20_000
    path = f"/{make(api, visits)}"
    statuses: Counter[int] = Counter()
    unanswered = 0

    async def visit(first: int) -> None:
        """Visit by way of one gateway again and again; by the next one once it is dead."""
        nonlocal unanswered
        at = first
        client = HttpClient(gateways[at % 4].port)
        for _ in range(requests // visitors):
            try:
                statuses[(await client.ask("GET", path)).status] += 1
            except OSError:
                unanswered += 1  # a redirect may have been on its way
                at += 1
                client = HttpClient(gateways[at % 4].port)
            if statuses[302] >= visits // 2 and gateways[3].is_alive:
                gateways[3].kill()
        await client.aclose()

    async def crowd() -> None:
        await asyncio.gather(*map(visit, range(visitors)))

    asyncio.run(crowd())
    gateways[3].start()

    assert unanswered
    assert sum(statuses.values()) + unanswered == requests
    assert statuses.keys() == {302, 410}
    assert statuses[302] <= visits
    assert statuses[302] + unanswered >= visits - MAX_QUOTA_LEASE
