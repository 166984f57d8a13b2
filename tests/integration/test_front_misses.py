"""Requests that the front's table cannot answer at once: one look-up, one deadline, and always an answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import pytest

from app.domain.errors import Overloaded, Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Slug
from app.service import l1_cache
from app.service.l1_cache import L1Bounds
from app.service.resolver import Resolver
from app.web import errors
from app.web.redirects import RedirectHandler
from tests.integration.front_in_process import TARGET, AloneFront
from tests.unit.services import CountingStore


@pytest.fixture
async def alone(embedded_store):
    with AloneFront(CountingStore(embedded_store)).serving() as alone:
        yield alone


@pytest.fixture
def short_lives(monkeypatch):
    """Entries of the L1 cache end at once."""
    monkeypatch.setattr(l1_cache, "TTL_S", 1e-6)


def code(answer) -> str:
    return json.loads(answer.body)["code"]


# --- outcomes -------------------------------------------------------------------------------


async def test_look_up_is_one_for_all_that_wait(alone):
    await alone.create("known")
    alone.store.open.clear()
    asked = alone.ask(*["known"] * 20, *["never"] * 10)
    await alone.until_awaited("known", 20)
    await alone.until_awaited("never", 10)
    alone.store.open.set()

    assert Counter(answer.status for answer in await asked) == {302: 20, 404: 10}
    assert Counter(alone.store.looked_up) == {"known": 1, "never": 1}
    alone.l1.collect()
    assert alone.clicks.take() == [("known", 20)]
    alone.metrics.samples()
    assert alone.redirects.missed == 30
    assert alone.redirects.answered == {302: 20, 404: 10}


async def test_visitors_of_what_their_batch_evicts_are_answered(embedded_store):
    """The table has room for one of those that are read together."""
    with AloneFront(CountingStore(embedded_store), L1Bounds(entries=1)).serving() as alone:
        for slug in ("aaa", "bbb", "ccc"):
            await alone.create(slug)

        answers = await alone.ask("aaa", "bbb", "ccc")

    assert [answer.status for answer in answers] == [302] * 3
    assert len(alone.l1) == 1


async def test_outdated_answer_of_the_last_source_is_sent_and_not_kept(alone):
    """It has nothing later, and visitors wait."""
    await alone.create("known")
    alone.l1.on_changes([LinkChanged(Slug("known"), 5)])

    assert [answer.status for answer in await alone.ask("known", "known")] == [302, 302]
    assert len(alone.l1) == 0


async def test_blocked_answer_is_the_one_that_is_sent(alone, monkeypatch):
    """The table holds what Python renders, also what it renders again."""
    await alone.create("known")
    [before] = await alone.ask("known")
    monkeypatch.setattr(alone.l1, "_render", lambda *_: errors.blocked("http://hop.example/"))

    alone.l1.render_again([Slug("known")])

    [after] = await alone.ask("known")
    assert (before.status, after.status) == (302, 451)
    assert alone.store.looked_up == ["known"]
    assert [one.long_url for one in alone.l1.held()] == [TARGET]


async def test_absent_store_is_503_for_all_that_wait(alone):
    alone.store.away = True

    answers = await alone.ask(*["aaa"] * 5, "bbb")

    assert {answer.status for answer in answers} == {503}
    [answer] = {answer.body for answer in answers}
    assert answer == (await alone.redirects.answer("ccc", "192.0.2.1")).body
    assert len(alone.errors) == 7
    assert {type(error) for error in alone.errors} == {Unavailable}


@pytest.mark.usefixtures("short_lives")
async def test_absent_store_leaves_stale_redirects(alone):
    await alone.create("known")
    await alone.create("metered", max_visits=9)
    assert {answer.status for answer in await alone.ask("known", "metered", "never")} == {302, 404}
    alone.store.away = True

    answers = await alone.ask("known", "known", "never", "metered")

    assert [answer.status for answer in answers[:3]] == [302, 302, 503]
    assert answers[0].header("location") == TARGET
    assert alone.resolver.stale_answers >= 2


async def test_refused_look_up_names_different_waits(alone):
    """Or those that are refused together retry together."""
    alone.admission.lag_s = 10.0

    answers = await alone.ask(*["aaa"] * 9, *(f"b{n}" for n in range(3)))

    assert {code(answer) for answer in answers} == {"overloaded"}
    assert {answer.header("retry-after") for answer in answers} <= {"1", "2", "3"}
    assert {type(error) for error in alone.errors} == {Overloaded}
    assert len(alone.errors) == 12


async def test_bug_is_a_500(alone, monkeypatch):
    async def fail(slugs):
        raise ZeroDivisionError(slugs)

    monkeypatch.setattr(alone.resolver, "_store", type("Store", (), {"resolve": staticmethod(fail)}))

    [answer] = await alone.ask("aaa")

    assert (answer.status, code(answer)) == (500, "server_error")
    assert [type(error) for error in alone.errors] == [ZeroDivisionError]


async def test_bug_before_the_look_up_is_a_500(alone, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Resolver, "look_up", fail)

    assert [answer.status for answer in await alone.ask("aaa", "bbb")] == [500, 500]


# --- the deadline ---------------------------------------------------------------------------


async def test_503_is_a_page_for_people(alone):
    """Made by the application, or by the front itself."""
    alone.store.away = True
    browser = "Accept: text/html,*/*;q=0.8"
    away = await asyncio.to_thread(alone.get, "zzz", browser)
    late = alone.blocking("yyy", browser)[0]

    for answer in (away, late):
        assert (answer.status, answer.header("content-type")) == (503, "text/html; charset=utf-8")
        assert answer.header("retry-after") == "1"
        assert b"<h1>Temporarily unavailable</h1>" in answer.body


async def test_blocked_event_loop_is_503(alone):
    [answer] = alone.blocking("known")

    assert (answer.status, code(answer)) == (503, "unavailable")
    assert answer.header("retry-after") == "1"
    assert answer.body == errors.unavailable(alone.redirects.late()).body
    alone.metrics.samples()
    assert [type(error) for error in alone.errors] == [Unavailable]
    assert alone.redirects.answered == {503: 1}


@pytest.mark.usefixtures("short_lives")
async def test_blocked_event_loop_leaves_stale_redirects(alone):
    await alone.create("known")
    await alone.ask("known")

    [answer] = alone.blocking("known")

    assert (answer.status, answer.header("location")) == (302, TARGET)
    alone.metrics.samples()
    assert alone.resolver.stale_answers == 1
    assert alone.errors == []


async def test_late_look_up_asks_no_further(alone, monkeypatch):
    """The cache is silent until the deadline has passed: the store is not asked for what none waits for."""
    silent = asyncio.Event()

    async def get_many(_slugs):
        await silent.wait()
        return {}

    monkeypatch.setattr(alone.cache, "get_many", get_many)

    assert [answer.status for answer in await alone.ask("aaa", "bbb")] == [503, 503]
    silent.set()
    await alone.resolver._from_cache.drain()
    await alone.resolver._from_store.drain()

    assert alone.store.looked_up == []
    assert alone.admission.in_flight == 0


async def test_late_lease_is_503_and_loses_no_visit(alone):
    await alone.create("metered", max_visits=1)
    await asyncio.to_thread(alone.get, "metered", "Sec-Purpose: prefetch")
    alone.store.open.clear()

    [late] = await alone.ask("metered")
    alone.store.open.set()

    assert (late.status, code(late)) == (503, "unavailable")
    assert [(await alone.ask("metered"))[0].status for _ in range(2)] == [302, 410]


async def test_doubled_slug_is_looked_up_once(alone):
    """Each look-up that is admitted ends: otherwise the count of those in flight would never fall again."""
    alone.resolver.look_up([Slug("aaa"), Slug("bbb"), Slug("aaa")], alone.misses)
    await alone.resolver._from_cache.drain()
    await alone.resolver._from_store.drain()
    alone.resolver.renew([Slug("ccc"), Slug("ccc")])
    await alone.resolver._from_cache.drain()
    await alone.resolver._from_store.drain()

    assert alone.admission.in_flight == 0
    assert "ccc" in Counter(alone.store.looked_up)
    assert set(Counter(alone.store.looked_up).values()) == {1}


@pytest.fixture
def joined_late(alone, monkeypatch):
    """Have a visitor of the slug in the returned list join while the answer to the others is being made."""
    slugs: list[str] = []
    late: list[asyncio.Future] = []
    refusals = RedirectHandler.refusals

    def made(self, *arguments):
        if not late:
            late.append(alone.ask(*slugs))
            time.sleep(0.2)
        return refusals(self, *arguments)

    monkeypatch.setattr(RedirectHandler, "refusals", made)
    return slugs, late


async def test_visitor_that_joins_a_failing_look_up_is_counted(alone, joined_late):
    slugs, late = joined_late
    slugs.append("aaa")
    alone.store.away = True

    answers = [*await alone.ask("aaa"), *await late[0]]

    assert [answer.status for answer in answers] == [503, 503]
    assert len(alone.errors) == 2


async def test_visitor_that_joins_a_failing_lease_is_counted(alone, joined_late):
    slugs, late = joined_late
    slugs.append("metered")
    await alone.create("metered", max_visits=1)
    await asyncio.to_thread(alone.get, "metered", "Sec-Purpose: prefetch")
    alone.store.away = True

    answers = [*await alone.ask("metered"), *await late[0]]

    assert [answer.status for answer in answers] == [503, 503]
    assert len(alone.errors) == 2


# --- renewal --------------------------------------------------------------------------------


async def test_visited_link_is_renewed_before_its_end(alone, monkeypatch):
    """Its visitors wait for one look-up, the first."""
    monkeypatch.setattr(l1_cache, "TTL_S", 0.5)
    await alone.create("known")

    def visit() -> None:
        while len(alone.store.looked_up) < 4:
            assert alone.get("known").status == 302

    await asyncio.to_thread(visit)

    assert alone.front.take_missed() == 1


async def test_renewal_that_fails_leaves_the_entry(alone, monkeypatch):
    monkeypatch.setattr(l1_cache, "TTL_S", 2.0)
    await alone.create("known")
    await alone.ask("known")
    end = alone.l1.get(Slug("known")).fresh_until
    alone.store.away = True

    def visit() -> None:
        while len(alone.store.looked_up) < 2:
            assert alone.get("known").status == 302

    await asyncio.to_thread(visit)
    await alone.resolver._from_store.drain()

    assert alone.l1.peek("known").fresh_until == end
    assert alone.errors == []
    assert alone.resolver.stale_answers == 0


# --- visits ---------------------------------------------------------------------------------


async def test_visits_of_a_metered_link_are_spent_exactly(alone):
    await alone.create("metered", max_visits=50)

    answers = [answer for _ in range(3) for answer in await alone.ask(*["metered"] * 30)]

    assert Counter(answer.status for answer in answers) == {302: 50, 410: 40}
    alone.l1.collect()
    assert alone.clicks.take() == [("metered", 50)]
    alone.metrics.samples()
    held, looked_up = alone.redirects.l1_errors, alone.redirects.answered
    assert held[410] + looked_up[410] == 40


async def test_limit_that_is_lifted_is_none(alone):
    """Those that wait for a lease go without."""
    await alone.create("metered", max_visits=1)
    await asyncio.to_thread(alone.get, "metered", "Sec-Purpose: prefetch")

    async def no_limit(_slug):
        return None

    alone.quota._store = type("Store", (), {"lease_quota": staticmethod(no_limit)})

    assert {answer.status for answer in await alone.ask(*["metered"] * 5)} == {302}


async def test_store_that_leases_nothing_is_503(alone):
    await alone.create("metered", max_visits=1)
    await asyncio.to_thread(alone.get, "metered", "Sec-Purpose: prefetch")
    alone.store.away = True

    answers = [answer for _ in range(3) for answer in await alone.ask("metered")]

    assert {(answer.status, code(answer)) for answer in answers} == {(503, "unavailable")}
    assert len(alone.errors) == 3
