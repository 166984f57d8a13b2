"""What the redirect lane counts: every redirect of a GET, wherever its answer came from."""

from __future__ import annotations

import time

import pytest

from app.adapters.bus_inprocess import InProcessBus
from app.adapters.cache_memory import MemoryCache
from app.adapters.gate_native import NativeGate
from app.domain.events import LinkChanged
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.ports import Policy
from app.resilience.admission import Admission
from app.service.admission import Entrance
from app.service.clicks import ClickCounter
from app.service.hot_links import HotLinks
from app.service.redirects import Redirects
from app.service.visits import Visits
from app.web.redirect import RedirectLane, render
from tests.conftest import NOW

LIVE = Resolution(Slug("live"), 1, "https://example.com/")
GONE = Resolution(Slug("gone"), 2)
CLIENT = "198.51.100.7"


class Counted:
    """A lane over the adapters that ship, and what it counts."""

    def __init__(self, store, rates, *, monotonic=time.monotonic):
        self.counter = ClickCounter()
        self.hot = HotLinks(render, monotonic=monotonic, wall=time.time, clicked=self.counter.count)
        self.cache = MemoryCache()
        entrance = Entrance(Admission(), monotonic=time.monotonic)
        redirects = Redirects(self.hot, self.cache, store, InProcessBus(), entrance)
        gate = NativeGate({policy: rates.get(policy, "1000/s burst 1000") for policy in Policy})
        visits = Visits(store, monotonic=time.monotonic)
        self.lane = RedirectLane(self.hot, redirects, gate, self.counter, visits, monotonic=monotonic)

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


async def limited(store, slug, max_visits):
    fields = LinkFields(long_url="https://example.com/", max_visits=max_visits)
    await store.add([NewLink(slug=slug, fields=fields)], now=NOW)


async def test_a_visit_of_a_limited_link_is_one_click_wherever_it_was_found(counted, embedded_store):
    await limited(embedded_store, Slug("few"), 3)

    answers = []
    for _ in range(5):
        assert counted.lane.answer_hot("few", CLIENT) is None
        answers.append((await counted.lane.answer("few", CLIENT)).status)

    assert answers == [302, 302, 302, 410, 410]
    assert counted.counts == {"few": 3}
    assert counted.lane.missed == 1
    assert counted.lane.hot_errors == {410: 2}


async def test_a_visit_of_a_limited_link_is_admitted_once(embedded_store):
    counted = Counted(embedded_store, {Policy.REDIRECT: "1/h burst 4"})
    await limited(embedded_store, Slug("few"), 100)

    answers = []
    for _ in range(5):
        hot = counted.lane.answer_hot("few", CLIENT)
        answers.append((hot or await counted.lane.answer("few", CLIENT)).status)

    assert answers == [302] * 4 + [429]


async def test_a_limited_link_that_nobody_leases_from_is_503_however_stale(counted, embedded_store):
    await counted.cache.put([Resolution(Slug("few"), 1, "https://example.com/", metered=True)])
    assert (await counted.lane.answer("few", CLIENT)).status == 410  # the store knows no such link
    await embedded_store.aclose()
    counted.hot.on_changes([LinkChanged(Slug("few"), 2)])
    await counted.cache.put([Resolution(Slug("few"), 2, "https://example.com/", metered=True)])

    assert (await counted.lane.answer("few", CLIENT)).status == 503
    counted.hot.get("few").fresh_until = 0
    counted.cache._entries.clear()
    assert (await counted.lane.answer("few", CLIENT)).status == 503
    assert counted.counts == {}


async def test_why_visits_fail_is_said_now_and_then(embedded_store, monotonic, caplog):
    counted = Counted(embedded_store, {}, monotonic=monotonic)
    await embedded_store.aclose()

    for _ in range(3):
        assert (await counted.lane.answer("live", CLIENT)).status == 503
        monotonic.now += 2.0

    said = [record.message for record in caplog.records if "answered 503" in record.message]
    assert len(said) == 1
    assert "sqlite is unavailable" in said[0]
    assert (await counted.lane.answer("live", CLIENT)).status == 503
    assert len([record for record in caplog.records if "answered 503" in record.message]) == 2


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
