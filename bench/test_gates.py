"""
Performance gates: ratios of two measurements, which fail on a large regression.

Both measurements alternate within this run. A gate fails when its usual ratio about doubles. The
ratios in the docstrings are medians of several runs.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from app.adapters.native_limiter import NativeRateLimiter
from app.domain.domains import DomainIndex
from app.domain.link import Resolution, Slug
from app.domain.target import canonical
from app.ports import Policy
from app.service.clicks import ClickCounter
from app.service.l1_cache import L1Cache
from app.telemetry.requests import RequestMetrics
from app.web.redirects import RedirectHandler, render
from app.web.route_table import RouteTable
from app.web.rsgi import RsgiApplication

SLUG = Slug("abcdefg")
# What an answer from the L1 cache does not touch.
UNUSED: Any = None


class _Protocol:
    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...


class _Scope:
    scheme, method, path, query_string, client = "http", "GET", f"/{SLUG}", "", "198.51.100.7:54321"


async def _bare(scope: _Scope, protocol: _Protocol) -> None:
    protocol.response_empty(302, [])


def _application() -> RsgiApplication:
    """The application of a worker process, with one permanent entry in the L1 cache."""
    limiter = NativeRateLimiter(dict.fromkeys(Policy, "1000000000/s burst 1000000000"))
    l1 = L1Cache(render, monotonic=lambda: time.monotonic() + 3600, wall=time.time)
    l1.put(Resolution(SLUG, 1, "https://example.com/a/long/path?with=query"))
    application = RsgiApplication(UNUSED)
    redirects = RedirectHandler(l1, UNUSED, limiter, ClickCounter(), UNUSED, monotonic=time.monotonic)
    application._answer_from_l1, application._trusted = redirects.answer_from_l1, ()
    application._domains = DomainIndex("https://hop.example")
    application._table = RouteTable([])
    application._note_visit = None
    application._measure(RequestMetrics(), [])
    return application


def _drive(application: Callable) -> Callable[[], None]:
    """Return a function that answers one request without an event loop."""
    scope, protocol = _Scope(), _Protocol()

    def one() -> None:
        try:
            application(scope, protocol).send(None)
        except StopIteration:
            return
        raise AssertionError("a redirect from the L1 cache awaited something")

    return one


def ratio(
    ours: Callable[[], object], other: Callable[[], object], *, calls: int = 250, rounds: int = 501
) -> float:
    """
    Return the time of *ours* over that of *other*: the median of *rounds*, each of a millisecond or two.

    What else the machine does lasts longer than that, so it slows both halves of a round.
    """
    ratios = []
    for _ in range(rounds):
        times = []
        for function in (ours, other):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def test_l1_redirect(benchmark: BenchmarkFixture) -> None:
    """The redirect handler against an application with a constant response: usually 4.4."""
    hopgate = _drive(_application().__rsgi__)
    benchmark(hopgate)

    assert ratio(hopgate, _drive(_bare)) < 7


def test_canonical_targets(benchmark: BenchmarkFixture) -> None:
    """All rules for a target against the parser alone: usually 2."""
    import ada_url

    url = "https://www.example.com/some/path?with=a&query=1"
    benchmark(canonical, url, own_hosts=frozenset())

    assert ratio(lambda: canonical(url, own_hosts=frozenset()), lambda: ada_url.URL(url).href) < 4


def test_drive_rejects_an_application_that_awaits() -> None:
    """Only an L1 hit answers without awaiting, so the gate cannot measure a miss."""

    async def awaits(scope: _Scope, protocol: _Protocol) -> None:
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="awaited"):
        _drive(awaits)()
