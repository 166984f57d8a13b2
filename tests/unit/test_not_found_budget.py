"""The not-found limit bounds look-ups, however many are concurrent."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.adapters.native_limiter import NativeRateLimiter
from app.domain.link import Resolution, Slug
from app.ports import Policy
from app.resilience.admission import AdmissionController
from app.service.clicks import ClickCounter
from app.service.l1_cache import L1Cache
from app.service.resolver import Resolver
from app.service.visit_quota import VisitQuota
from app.web.redirects import RedirectHandler, render
from tests.unit.services import CountingStore

CLIENT = "198.51.100.7"
BUDGET = 60
UNLIMITED = "1000000/s burst 1000000"


@pytest.fixture
def store(embedded_store):
    return CountingStore(embedded_store)


@pytest.fixture
async def handler(store, cache):
    bus = InProcessBus()
    limits = {**dict.fromkeys(Policy, UNLIMITED), Policy.NOT_FOUND: f"1/h burst {BUDGET}"}
    l1 = L1Cache(render, monotonic=time.monotonic, wall=time.time)
    admission = AdmissionController(monotonic=time.monotonic)
    # Hundreds of concurrent look-ups on a busy machine exceed the deadline of a redirect.
    resolver = Resolver(l1, cache, store, bus, admission)
    quota = VisitQuota(store, monotonic=time.monotonic)
    yield RedirectHandler(
        l1,
        resolver,
        NativeRateLimiter(limits),
        ClickCounter(),
        quota,
        monotonic=time.monotonic,
        limit_s=60,
    )
    await bus.aclose()


@pytest.fixture
def cache():
    return MemoryCache()


async def statuses(handler, slugs):
    return [one.status for one in await asyncio.gather(*(handler.answer(slug, CLIENT) for slug in slugs))]


async def test_concurrent_guesses_stay_within_the_budget(handler, store):
    answers = await statuses(handler, [f"guess-{i}" for i in range(500)])

    assert len(store.looked_up) == BUDGET
    assert (answers.count(404), answers.count(429)) == (BUDGET, 500 - BUDGET)


async def test_hit_refunds_its_look_up(handler, cache):
    """Ten times the budget, of links that exist."""
    slugs = [Slug(f"link-{i}") for i in range(10 * BUDGET)]
    await cache.put([Resolution(slug, 1, "https://example.com/") for slug in slugs])

    for start in range(0, len(slugs), BUDGET):
        assert set(await statuses(handler, slugs[start : start + BUDGET])) == {302}


async def test_unavailable_store_uses_no_budget(handler, store):
    store.away = True
    for _ in range(5):
        assert set(await statuses(handler, [f"guess-{i}" for i in range(BUDGET)])) == {503}
    store.away = False

    assert (await handler.answer("guess", CLIENT)).status == 404


async def test_cancelled_look_up_is_not_refunded(handler, store):
    """A scan that does not wait for its responses is no cheaper."""
    store.open.clear()
    asked = [asyncio.create_task(handler.answer(f"guess-{i}", CLIENT)) for i in range(BUDGET)]
    await asyncio.sleep(0)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)

    assert (await handler.answer("another", CLIENT)).status == 429


async def test_coalesced_hits_use_no_budget(handler, store, cache):
    """One address, with more visitors of one cold link than its budget has look-ups."""
    await cache.put([Resolution(Slug("popular"), 1, "https://example.com/")])

    assert set(await statuses(handler, ["popular"] * 1000)) == {302}


async def test_coalesced_misses_count_for_each_caller(handler, store):
    answers = await statuses(handler, ["unknown"] * 500)

    assert len(store.looked_up) == 1
    assert (answers.count(404), answers.count(429)) == (BUDGET, 500 - BUDGET)


async def test_scan_leaves_shared_cache_empty(handler, cache, store):
    """Two hundred guesses from two hundred addresses."""
    await asyncio.gather(*(handler.answer(f"guess-{i}", f"198.51.100.{i}") for i in range(200)))

    assert len(store.looked_up) == 200
    assert len(cache) == 0
    assert not handler._resolver._missed
