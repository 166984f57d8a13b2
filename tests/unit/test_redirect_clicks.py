"""Clicks: every redirect of a GET counts, from the L1 cache or any other source."""

from __future__ import annotations

import time

import pytest

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.adapters.native_limiter import NativeRateLimiter
from app.domain.events import LinkChanged
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.ports import Policy
from app.resilience.admission import AdmissionController
from app.service.clicks import ClickCounter
from app.service.l1_cache import L1Cache
from app.service.resolver import Resolver
from app.service.visit_quota import VisitQuota
from app.web.redirects import RedirectHandler, render
from tests.conftest import NOW

LIVE = Resolution(Slug("live"), 1, "https://example.com/")
GONE = Resolution(Slug("gone"), 2)
CLIENT = "198.51.100.7"


class Counted:
    """A redirect handler over the adapters that ship, and its clicks."""

    def __init__(self, store, rates, *, monotonic=time.monotonic):
        self.counter = ClickCounter()
        self.l1 = L1Cache(render, monotonic=monotonic, wall=time.time, clicked=self.counter.count)
        self.cache = MemoryCache()
        admission = AdmissionController(monotonic=time.monotonic)
        resolver = Resolver(self.l1, self.cache, store, InProcessBus(), admission)
        limiter = NativeRateLimiter({policy: rates.get(policy, "1000/s burst 1000") for policy in Policy})
        quota = VisitQuota(store, monotonic=time.monotonic)
        self.handler = RedirectHandler(self.l1, resolver, limiter, self.counter, quota, monotonic=monotonic)

    @property
    def counts(self):
        self.l1.collect()
        return dict(self.counter.take())


@pytest.fixture
def counted(embedded_store):
    return Counted(embedded_store, {})


async def test_clicks_from_every_source_count(counted):
    await counted.cache.put([LIVE])

    assert counted.handler.answer_from_l1("live", CLIENT, time.monotonic()) is None
    assert (await counted.handler.answer("live", CLIENT)).status == 302
    assert counted.handler.answer_from_l1("live", CLIENT, time.monotonic()).status == 302
    assert (await counted.handler.answer("live", CLIENT)).status == 302
    counted.l1.on_changes([LinkChanged(Slug("live"), 2)])
    await counted.cache.put([Resolution(Slug("live"), 2, "https://example.com/")])
    assert (await counted.handler.answer("live", CLIENT)).status == 302

    assert counted.counts == {"live": 4}


async def limited(store, slug, max_visits):
    fields = LinkFields(long_url="https://example.com/", max_visits=max_visits)
    await store.add([NewLink(slug=slug, fields=fields)], now=NOW)


async def test_metered_visit_is_one_click(counted, embedded_store):
    await limited(embedded_store, Slug("few"), 3)

    answers = []
    for _ in range(5):
        assert counted.handler.answer_from_l1("few", CLIENT, time.monotonic()) is None
        answers.append((await counted.handler.answer("few", CLIENT)).status)

    assert answers == [302, 302, 302, 410, 410]
    assert counted.counts == {"few": 3}
    assert counted.handler.missed == 1
    assert counted.handler.l1_errors == {410: 2}


async def test_metered_visit_is_admitted_once(embedded_store):
    counted = Counted(embedded_store, {Policy.REDIRECT: "1/h burst 4"})
    await limited(embedded_store, Slug("few"), 100)

    answers = []
    for _ in range(5):
        l1 = counted.handler.answer_from_l1("few", CLIENT, time.monotonic())
        answers.append((l1 or await counted.handler.answer("few", CLIENT)).status)

    assert answers == [302] * 4 + [429]


async def test_metered_link_without_store_is_503(counted, embedded_store):
    await counted.cache.put([Resolution(Slug("few"), 1, "https://example.com/", metered=True)])
    assert (await counted.handler.answer("few", CLIENT)).status == 410  # the store knows no such link
    await embedded_store.aclose()
    counted.l1.on_changes([LinkChanged(Slug("few"), 2)])
    await counted.cache.put([Resolution(Slug("few"), 2, "https://example.com/", metered=True)])

    assert (await counted.handler.answer("few", CLIENT)).status == 503
    counted.l1.get("few").fresh_until = 0
    counted.cache._entries.clear()
    assert (await counted.handler.answer("few", CLIENT)).status == 503
    assert counted.counts == {}


async def test_failure_log_is_throttled(embedded_store, monotonic, caplog):
    counted = Counted(embedded_store, {}, monotonic=monotonic)
    await embedded_store.aclose()

    for _ in range(3):
        assert (await counted.handler.answer("live", CLIENT)).status == 503
        monotonic.now += 2.0

    logged = [record.message for record in caplog.records if "answered 503" in record.message]
    assert len(logged) == 1
    assert "sqlite is unavailable" in logged[0]
    assert (await counted.handler.answer("live", CLIENT)).status == 503
    assert len([record for record in caplog.records if "answered 503" in record.message]) == 2


async def test_head_is_no_click(counted):
    await counted.cache.put([LIVE])

    for _ in range(2):
        assert (await counted.handler.answer("live", CLIENT, is_head=True)).status == 302

    assert counted.counts == {}


async def test_error_response_is_no_click(counted):
    await counted.cache.put([GONE])

    for _ in range(2):
        assert (await counted.handler.answer("gone", CLIENT)).status == 410
        assert (await counted.handler.answer("never", CLIENT)).status == 404
        assert (await counted.handler.answer("no.slug", CLIENT)).status == 404

    assert counted.counts == {}


async def test_refused_visit_is_no_click(embedded_store):
    counted = Counted(embedded_store, {Policy.REDIRECT: "1/h burst 1"})
    await counted.cache.put([LIVE])

    answers = [(await counted.handler.answer("live", CLIENT)).status for _ in range(3)]

    assert answers == [302, 429, 429]
    assert counted.counts == {"live": 1}
