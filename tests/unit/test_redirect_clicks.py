"""What the redirect lane counts: every redirect of a GET, wherever its answer came from."""

from __future__ import annotations

import time

import pytest

from app.adapters.bus_inprocess import InProcessBus
from app.adapters.cache_memory import MemoryCache
from app.adapters.gate_native import NativeGate
from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.ports import Policy
from app.resilience.admission import Admission
from app.service.admission import Entrance
from app.service.clicks import ClickCounter
from app.service.hot_links import HotLinks
from app.service.redirects import Redirects
from app.web.redirect import RedirectLane, render

LIVE = Resolution(Slug("live"), 1, "https://example.com/")
GONE = Resolution(Slug("gone"), 2)
CLIENT = "198.51.100.7"


class Counted:
    """A lane over the adapters that ship, and what it counts."""

    def __init__(self, store, rates):
        self.counter = ClickCounter()
        self.hot = HotLinks(render, monotonic=time.monotonic, wall=time.time, clicked=self.counter.count)
        self.cache = MemoryCache()
        entrance = Entrance(Admission(), monotonic=time.monotonic)
        redirects = Redirects(self.hot, self.cache, store, InProcessBus(), entrance)
        gate = NativeGate({policy: rates.get(policy, "1000/s burst 1000") for policy in Policy})
        self.lane = RedirectLane(self.hot, redirects, gate, self.counter, monotonic=time.monotonic)

    @property
    def counts(self):
        self.hot.harvest()
        return dict(self.counter.take())


@pytest.fixture
def counted(embedded_store):
    return Counted(embedded_store, {})


async def test_every_source_counts(counted):
    await counted.cache.put([LIVE])

    assert counted.lane.answer_hot("live", CLIENT) is None
    assert (await counted.lane.answer("live", CLIENT)).status == 302
    assert counted.lane.answer_hot("live", CLIENT).status == 302
    assert (await counted.lane.answer("live", CLIENT)).status == 302
    counted.hot.on_changes([LinkChanged(Slug("live"), 2)])
    await counted.cache.put([Resolution(Slug("live"), 2, "https://example.com/")])
    assert (await counted.lane.answer("live", CLIENT)).status == 302

    assert counted.counts == {"live": 4}


async def test_head_is_no_click(counted):
    await counted.cache.put([LIVE])

    for _ in range(2):
        assert (await counted.lane.answer("live", CLIENT, is_head=True)).status == 302

    assert counted.counts == {}


async def test_what_is_no_redirect_is_no_click(counted):
    await counted.cache.put([GONE])

    for _ in range(2):
        assert (await counted.lane.answer("gone", CLIENT)).status == 410
        assert (await counted.lane.answer("never", CLIENT)).status == 404
        assert (await counted.lane.answer("no.slug", CLIENT)).status == 404

    assert counted.counts == {}


async def test_a_refused_visit_is_no_click(embedded_store):
    counted = Counted(embedded_store, {Policy.REDIRECT: "1/h burst 1"})
    await counted.cache.put([LIVE])

    answers = [(await counted.lane.answer("live", CLIENT)).status for _ in range(3)]

    assert answers == [302, 429, 429]
    assert counted.counts == {"live": 1}
