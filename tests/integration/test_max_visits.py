"""A link with a limit on the whole stack: visitors on both gateways, and one of these is killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from app.ports import MAX_VISITS_A_LEASE
from tests.servers.hopgate import Gateway, Worker, eventually, make_key
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
LINKS = "/api/v1/links"
VISITS = 200


@pytest.fixture(scope="module")
def settings(postgres, redis_server, rabbitmq) -> dict[str, str]:
    return stack_settings(postgres, redis_server, rabbitmq)


@pytest.fixture(scope="module")
def gateways(settings, tmp_path_factory) -> Iterator[list[Gateway]]:
    directory = tmp_path_factory.mktemp("stack")
    with ExitStack() as running:
        running.enter_context(Worker(settings, directory))
        yield [running.enter_context(Gateway(settings, directory)) for _ in range(2)]


@pytest.fixture(scope="module")
def api(settings, gateways) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with httpx.Client(base_url=gateways[0].url, headers=headers) as client:
        yield client


def make(api: httpx.Client) -> str:
    made = api.post(LINKS, json={"long_url": "https://example.com/", "max_visits": VISITS})
    assert made.status_code == 201
    return made.json()["slug"]


class Visitors:
    """Go to a slug until told that it is gone; know how many redirects they were given."""

    def __init__(self, slug: str) -> None:
        self._slug = slug
        self._lock = threading.Lock()
        self.redirects = 0
        self.others: set[int] = set()

    def visit(self, gateway: Gateway, at_most: int) -> bool:
        """Return whether it was gone before *at_most* redirects."""
        with httpx.Client(base_url=gateway.url) as client:
            for _ in range(at_most):
                try:
                    status = client.get(f"/{self._slug}").status_code
                except httpx.HTTPError:  # it was killed
                    return False
                if status == 410:
                    return True
                with self._lock:
                    self.redirects += status == 302
                    self.others |= {status} - {302}
        return False


def test_two_gateways_give_exactly_as_many_redirects_as_there_are_visits(api, gateways):
    """Once nobody holds any that others could have: who is idle gives them back."""
    visitors = Visitors(make(api))

    def crowd() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: visitors.visit(gateways[n % 2], VISITS), range(8)))
        return visitors.redirects >= VISITS

    eventually(crowd, 30, "every visit is spent")

    assert visitors.redirects == VISITS
    assert not visitors.others


def test_a_gateway_that_is_killed_costs_one_lease_and_never_gives_more(api, gateways):
    visitors = Visitors(make(api))
    doomed, other = gateways[1], gateways[0]
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

    assert VISITS - MAX_VISITS_A_LEASE <= visitors.redirects <= VISITS
    assert not visitors.others
