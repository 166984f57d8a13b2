"""`REDIRECT_S` bounds a redirect as a whole: look-up and visit quota together."""

from __future__ import annotations

import asyncio
import selectors
import time

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.adapters.native_limiter import NativeRateLimiter
from app.domain.link import Resolution, Slug
from app.ports import Policy
from app.resilience.admission import AdmissionController
from app.resilience.deadline import REDIRECT_S
from app.service.clicks import ClickCounter
from app.service.l1_cache import TTL_S, L1Cache
from app.service.resolver import Resolver
from app.service.visit_quota import VisitQuota
from app.web.redirects import RedirectHandler, render

CLIENT = "198.51.100.7"
METERED, PLAIN = Slug("metered"), Slug("plain")
MARGIN_S = 0.01


class _Selector(selectors.SelectSelector):
    """Skips every wait, and counts it."""

    slept_s = 0.0

    def select(self, timeout=None):
        self.slept_s += timeout or 0.0
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """Time passes only while all tasks wait, and at once: nothing here sleeps."""

    def __init__(self):
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self):
        return self._virtual.slept_s


class SlowStore:
    """Knows one link with a quota and one without."""

    def __init__(self, *, resolve_s=0.0, lease_s=0.0):
        self.resolve_s, self.lease_s = resolve_s, lease_s
        self.leased = self.cancelled = 0

    async def resolve(self, slugs):
        await asyncio.sleep(self.resolve_s)
        return {slug: Resolution(slug, 1, "https://example.com/", metered=slug == METERED) for slug in slugs}

    async def lease_quota(self, _slug):
        try:
            await asyncio.sleep(self.lease_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.leased += 1
        return 8

    async def return_quota(self, _slug, _visits, _version): ...


class Stopwatch:
    """A handler over a slow store, and how long each response takes."""

    def __init__(self, store, *, limits=None):
        clock = asyncio.get_running_loop().time
        limits = dict.fromkeys(Policy, "1000000/s burst 1000000") | (limits or {})
        l1 = L1Cache(render, monotonic=clock, wall=time.time, random=lambda: 0.0)
        admission = AdmissionController(monotonic=clock)
        resolver = Resolver(l1, MemoryCache(), store, InProcessBus(), admission)
        quota = VisitQuota(store, monotonic=clock)
        limiter = NativeRateLimiter(limits)
        self._handler = RedirectHandler(l1, resolver, limiter, ClickCounter(), quota, monotonic=clock)
        self._clock = clock

    async def get(self, slug):
        began = self._clock()
        response = await self._handler.answer(slug, CLIENT)
        return response.status, self._clock() - began


def run(coroutine):
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(coroutine)


def test_metered_miss_shares_one_deadline():
    async def story():
        return await Stopwatch(SlowStore(resolve_s=0.42, lease_s=0.46)).get(METERED)

    status, took_s = run(story())

    assert status == 503
    assert took_s <= REDIRECT_S + MARGIN_S


def test_metered_hit_has_the_same_deadline():
    async def story():
        store = SlowStore()
        stopwatch = Stopwatch(store)
        for _ in range(8):
            assert (await stopwatch.get(METERED))[0] == 302
        store.lease_s = 60.0
        return await stopwatch.get(METERED)

    status, took_s = run(story())

    assert status == 503
    assert took_s <= REDIRECT_S + MARGIN_S


def test_slow_steps_within_the_deadline_redirect():
    async def story():
        store = SlowStore(resolve_s=0.3, lease_s=0.15)
        stopwatch = Stopwatch(store)
        return [await stopwatch.get(METERED), await stopwatch.get(PLAIN)]

    assert [status for status, _ in run(story())] == [302, 302]


def test_lease_survives_the_deadline_of_its_visitor():
    """The lease ends in the store's own time, and serves the visitors that come after."""

    async def story():
        store = SlowStore(resolve_s=0.42, lease_s=0.46)
        stopwatch = Stopwatch(store)
        first = await stopwatch.get(METERED)
        await asyncio.sleep(0.46)
        return first[0], await stopwatch.get(METERED), store

    first, (second, took_s), store = run(story())

    assert (first, second) == (503, 302)
    assert (store.leased, store.cancelled) == (1, 0)
    assert took_s <= MARGIN_S


def test_plain_miss_with_a_silent_store_is_503_in_time():
    async def story():
        return await Stopwatch(SlowStore(resolve_s=60.0)).get(PLAIN)

    status, took_s = run(story())

    assert status == 503
    assert took_s <= REDIRECT_S + MARGIN_S


def test_late_look_up_leaves_the_stale_redirect_of_a_plain_link():
    async def story():
        store = SlowStore()
        stopwatch = Stopwatch(store)
        assert [(await stopwatch.get(slug))[0] for slug in (PLAIN, METERED)] == [302, 302]
        await asyncio.sleep(TTL_S)
        store.resolve_s = 60.0
        return [await stopwatch.get(slug) for slug in (PLAIN, METERED)]

    plain, metered = run(story())

    # No visit of a quota is spent on a response that is already late.
    assert (plain[0], metered[0]) == (302, 503)
    assert max(plain[1], metered[1]) <= REDIRECT_S + MARGIN_S


def test_timed_out_look_up_refunds_the_not_found_limit():
    async def story():
        stopwatch = Stopwatch(SlowStore(resolve_s=60.0), limits={Policy.NOT_FOUND: "1/h burst 1"})
        return [await stopwatch.get(f"plain-{i}") for i in range(3)]

    assert [status for status, _ in run(story())] == [503] * 3
