"""Who finds nothing may look up only so much: however much is asked at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.adapters.bus_inprocess import InProcessBus
from app.adapters.cache_memory import MemoryCache
from app.adapters.gate_native import NativeGate
from app.domain.link import Resolution, Slug
from app.ports import Policy
from app.resilience.admission import Admission
from app.service.admission import Entrance
from app.service.clicks import ClickCounter
from app.service.hot_links import HotLinks
from app.service.redirects import Redirects
from app.service.visits import Visits
from app.web.redirect import RedirectLane, render
from tests.unit.services import CountingStore

CLIENT = "198.51.100.7"
BUDGET = 60
UNLIMITED = "1000000/s burst 1000000"


@pytest.fixture
def store(embedded_store):
    return CountingStore(embedded_store)


@pytest.fixture
async def lane(store, cache):
    bus = InProcessBus()
    limits = {**dict.fromkeys(Policy, UNLIMITED), Policy.NOT_FOUND: f"1/h burst {BUDGET}"}
    hot = HotLinks(render, monotonic=time.monotonic, wall=time.time)
    entrance = Entrance(Admission(), monotonic=time.monotonic)
    # Hundreds at once on a busy machine take longer than a visitor would wait.
    redirects = Redirects(hot, cache, store, bus, entrance, limit_s=60)
    visits = Visits(store, monotonic=time.monotonic)
    yield RedirectLane(hot, redirects, NativeGate(limits), ClickCounter(), visits, monotonic=time.monotonic)
    await bus.aclose()


@pytest.fixture
def cache():
    return MemoryCache()


async def statuses(lane, slugs):
    return [one.status for one in await asyncio.gather(*(lane.answer(slug, CLIENT) for slug in slugs))]


async def test_five_hundred_guesses_at_once_reach_the_store_no_more_often_than_the_budget(lane, store):
    answers = await statuses(lane, [f"guess-{i}" for i in range(500)])

    assert len(store.looked_up) == BUDGET
    assert (answers.count(404), answers.count(429)) == (BUDGET, 500 - BUDGET)


async def test_who_finds_something_gets_the_look_up_back(lane, cache):
    """Ten times the budget, of links that exist."""
    slugs = [Slug(f"link-{i}") for i in range(10 * BUDGET)]
    await cache.put([Resolution(slug, 1, "https://example.com/") for slug in slugs])

    for start in range(0, len(slugs), BUDGET):
        assert set(await statuses(lane, slugs[start : start + BUDGET])) == {302}


async def test_a_store_that_is_away_uses_nothing_up(lane, store):
    store.away = True
    for _ in range(5):
        assert set(await statuses(lane, [f"guess-{i}" for i in range(BUDGET)])) == {503}
    store.away = False

    assert (await lane.answer("guess", CLIENT)).status == 404


async def test_who_hangs_up_has_paid(lane, store):
    """A scan that does not wait for its answers is no cheaper."""
    store.open.clear()
    asked = [asyncio.create_task(lane.answer(f"guess-{i}", CLIENT)) for i in range(BUDGET)]
    await asyncio.sleep(0)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)

    assert (await lane.answer("another", CLIENT)).status == 429


async def test_waiting_for_a_look_up_of_somebody_else_costs_the_finder_nothing(lane, store, cache):
    """More visitors of one cold link at once, behind one address, than the budget has look-ups."""
    await cache.put([Resolution(Slug("popular"), 1, "https://example.com/")])

    assert set(await statuses(lane, ["popular"] * 1000)) == {302}


async def test_an_unknown_slug_that_many_wait_for_is_counted_for_each(lane, store):
    answers = await statuses(lane, ["unknown"] * 500)

    assert len(store.looked_up) == 1
    assert (answers.count(404), answers.count(429)) == (BUDGET, 500 - BUDGET)


async def test_a_scan_leaves_nothing_in_the_shared_cache(lane, cache, store):
    """Two hundred guesses from two hundred addresses."""
    await asyncio.gather(*(lane.answer(f"guess-{i}", f"198.51.100.{i}") for i in range(200)))

    assert len(store.looked_up) == 200
    assert len(cache) == 0
    assert not lane._redirects._missed
