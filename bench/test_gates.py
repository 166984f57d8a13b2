"""
Gates: what has become much slower than the thing it stands beside is a mistake.

Every gate is a ratio of two measurements taken in turn in this run, and fails when a usual
figure about doubles. The figures in the docstrings are medians of several runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from app.adapters.gate_native import NativeGate
from app.domain.link import Resolution, Slug
from app.domain.target import canonical
from app.ports import Policy
from app.service.clicks import ClickCounter
from app.service.hot_links import HotLinks
from app.web.redirect import RedirectLane, render
from app.web.rsgi import RouteTable, RsgiApplication

SLUG = Slug("abcdefg")


class _Protocol:
    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...


class _Scope:
    scheme, method, path, query_string, client = "http", "GET", f"/{SLUG}", "", "198.51.100.7:54321"


async def _bare(scope: _Scope, protocol: _Protocol) -> None:
    protocol.response_empty(302, [])


def _application() -> RsgiApplication:
    """The application as a worker has it, with one link in the first cache that stays there."""
    gate = NativeGate(dict.fromkeys(Policy, "1000000000/s burst 1000000000"))
    hot = HotLinks(render, monotonic=lambda: time.monotonic() + 3600, wall=time.time)
    hot.put(Resolution(SLUG, 1, "https://example.com/a/long/path?with=query"))
    application = RsgiApplication(None)
    lane = RedirectLane(hot, None, gate, ClickCounter(), None, monotonic=time.monotonic)
    application._answer_hot, application._trusted = lane.answer_hot, ()
    application._table = RouteTable([])
    return application


def _drive(application: Callable) -> Callable[[], None]:
    """Return a call that answers one request, as the event loop would drive it."""
    scope, protocol = _Scope(), _Protocol()

    def one() -> None:
        try:
            application(scope, protocol).send(None)
        except StopIteration:
            return
        raise AssertionError("a redirect from the first cache awaited something")

    return one


def ratio(
    ours: Callable[[], object], other: Callable[[], object], *, calls: int = 20_000, rounds: int = 15
) -> float:
    """Return how much longer *ours* takes: the best of *rounds*, taken in turn."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for i, function in enumerate((ours, other)):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0] / best[1]


def test_a_redirect_from_the_first_cache(benchmark: pytest.FixtureRequest) -> None:
    """The whole lane beside an application that decides nothing: usually 4.4."""
    lane = _drive(_application().__rsgi__)
    benchmark(lane)

    assert ratio(lane, _drive(_bare)) < 7


def test_canonical_targets(benchmark: pytest.FixtureRequest) -> None:
    """All rules for a target beside the parser alone: usually 6."""
    import can_ada

    url = "https://www.example.com/some/path?with=a&query=1"
    benchmark(canonical, url, own_hosts=frozenset())

    assert ratio(lambda: canonical(url, own_hosts=frozenset()), lambda: can_ada.parse(url).href) < 11


def test_an_application_that_is_driven_awaits_nothing() -> None:
    """The gate above measures what it says: on a miss, the same drive would complain."""

    async def awaits(scope: _Scope, protocol: _Protocol) -> None:
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="awaited"):
        _drive(awaits)()
