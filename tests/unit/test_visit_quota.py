"""Visit quotas: never more redirects than allowed; visits are lost only with a process or a reply."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.concurrency.time_limit import left_s, within
from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.ports import MAX_QUOTA_LEASE
from app.resilience.deadline import REDIRECT_S
from app.service.leases import Leases
from app.service.visit_quota import EXHAUSTED_S, IDLE_S, VisitQuota
from tests.budgets import examples
from tests.conftest import ManualTime

SLUG = Slug("slug")


class ModelStore:
    """One link with a limit, as the contract describes leases, and replies that get lost."""

    def __init__(self, max_visits: int | None) -> None:
        self.version = 1
        self.max_visits = max_visits
        self.taken = 0
        self.leases = 0
        self.lost = 0
        self.trouble = ""

    def change(self, max_visits: int | None) -> None:
        self.max_visits = max_visits
        self.version += 1

    async def lease_quota(self, _slug: Slug) -> int | None:
        trouble, leased = self.trouble, None
        await asyncio.sleep(0)
        if trouble != "refuses" and self.max_visits is not None:
            leased = min(MAX_QUOTA_LEASE, -(-max(0, self.max_visits - self.taken) // 8))
            self.taken += leased
            self.leases += 1
        if trouble:
            self.lost += leased or 0
            raise Unavailable("store", trouble)
        await asyncio.sleep(0)
        return leased

    async def quota_left(self, _slug: Slug) -> int | None:
        return None if self.max_visits is None else max(0, self.max_visits - self.taken)

    async def return_quota(self, _slug: Slug, visits: int, _version: int) -> None:
        assert 0 < visits <= self.taken
        trouble = self.trouble
        await asyncio.sleep(0)
        if trouble != "refuses":
            self.taken -= visits
        else:
            self.lost += visits
        if trouble:
            raise Unavailable("store", trouble)


class Process:
    """One process, and the version of the link that it knows."""

    def __init__(self, store: ModelStore, monotonic: ManualTime) -> None:
        self.leases = Leases()
        self.visits = VisitQuota(store, monotonic=monotonic, leases=self.leases)
        self.store = store
        self.version = store.version

    async def visit(self, *, spend: bool = True) -> bool:
        with suppress(Unavailable):
            return await self.visits.take(SLUG, self.version, spend=spend)
        return False

    @property
    def held(self) -> int:
        return sum(lease.left for lease in self.leases._held.values())


_processes = st.integers(0, 2)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("visit"), _processes, st.integers(1, 30)),
        st.tuples(st.just("everywhere"), st.integers(1, 15)),
        st.tuples(st.just("look"), _processes),
        st.tuples(st.just("hear"), _processes),
        st.tuples(st.just("crash"), _processes),
        st.tuples(st.just("stop"), _processes),
        st.tuples(st.just("change"), st.integers(1, 600)),
        st.tuples(st.just("trouble"), st.sampled_from(["", "", "refuses", "loses replies"])),
        st.tuples(st.just("wait"), st.sampled_from([0.1, EXHAUSTED_S, IDLE_S])),
    ),
    max_size=40,
)


class Story:
    """Three processes and their visitors; `given` counts redirects."""

    def __init__(self, max_visits: int) -> None:
        self.monotonic = ManualTime()
        self.store = ModelStore(max_visits)
        self.processes = [Process(self.store, self.monotonic) for _ in range(3)]
        self.given = 0
        self.highest = max_visits

    async def play(self, steps) -> None:
        for verb, *rest in steps:
            await getattr(self, verb)(*rest)
            # Visits are debited before use: at every moment, after any loss.
            held = sum(process.held for process in self.processes)
            assert self.given + held <= self.store.taken <= self.highest
        self.store.trouble = ""
        for n in range(3):
            await self.stop(n)
        last = Process(self.store, self.monotonic)
        while await last.visit():
            self.given += 1
        assert self.given <= self.highest
        assert self.store.max_visits is not None
        assert self.given >= self.store.max_visits - self.store.lost

    async def visit(self, n: int, visitors: int) -> None:
        await self._come(self.processes[n].visit() for _ in range(visitors))

    async def everywhere(self, visitors: int) -> None:
        """Those of one process come between those of the others."""
        await self._come(process.visit() for _ in range(visitors) for process in self.processes)

    async def _come(self, visitors) -> None:
        answers = await asyncio.gather(*visitors)
        self.given += sum(answers)

    async def look(self, n: int) -> None:
        await self.processes[n].visit(spend=False)

    async def hear(self, n: int) -> None:
        """Of the latest version, while visitors of the one before still wait."""
        before = asyncio.ensure_future(self.visit(n, 3))
        await asyncio.sleep(0)
        self.processes[n].version = self.store.version
        await asyncio.gather(before, self.visit(n, 3))

    async def crash(self, n: int) -> None:
        held = self.processes[n].held
        assert held <= MAX_QUOTA_LEASE
        self.store.lost += held
        self.processes[n] = Process(self.store, self.monotonic)

    async def stop(self, n: int) -> None:
        await self.processes[n].visits.aclose()
        assert self.processes[n].held == 0
        self.processes[n] = Process(self.store, self.monotonic)

    async def change(self, max_visits: int) -> None:
        self.store.change(max_visits)
        self.highest = max(self.highest, max_visits)

    async def trouble(self, kind: str) -> None:
        self.store.trouble = kind

    async def wait(self, seconds: float) -> None:
        self.monotonic.now += seconds
        for process in self.processes:
            await process.visits.give_back(idle_s=IDLE_S)


@given(max_visits=st.integers(1, 600), steps=_steps)
@settings(max_examples=examples(300))
def test_redirects_never_exceed_the_limit(max_visits, steps):
    asyncio.run(Story(max_visits).play(steps))


async def test_concurrent_visitors_share_one_lease(monotonic):
    store = ModelStore(512)
    process = Process(store, monotonic)

    answers = await asyncio.gather(*(process.visit() for _ in range(64)))

    assert all(answers)
    assert store.leases == 1


async def test_visitors_beyond_the_quota_get_none(monotonic):
    store = ModelStore(10)
    process = Process(store, monotonic)

    answers = await asyncio.gather(*(process.visit() for _ in range(500)))

    assert sum(answers) == 10


async def test_lease_outlives_a_cancelled_visitor(monotonic):
    """A visitor that hangs up costs no visit."""
    store = ModelStore(64)
    process = Process(store, monotonic)
    first = asyncio.ensure_future(process.visit())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    assert sum([await process.visit() for _ in range(70)]) == 64


async def test_lease_inherits_no_deadline(monotonic):
    """Otherwise a store that commits just after the deadline loses this lease, and the next one as well."""
    left = []

    class Store(ModelStore):
        async def lease_quota(self, slug):
            left.append(left_s(0.0))
            return await super().lease_quota(slug)

    process = Process(Store(64), monotonic)
    async with within(REDIRECT_S):
        assert await process.visit()

    assert left == [math.inf]


async def test_check_spends_nothing(monotonic):
    process = Process(ModelStore(1), monotonic)

    assert [await process.visit(spend=False) for _ in range(5)] == [True] * 5
    assert [await process.visit() for _ in range(2)] == [True, False]
    assert not await process.visit(spend=False)


async def test_look_leases_nothing(monotonic):
    store = ModelStore(1)
    process, other = Process(store, monotonic), Process(store, monotonic)

    assert [await process.visits.is_left(SLUG, 1) for _ in range(5)] == [True] * 5
    assert store.leases == 0
    assert process.held == 0
    assert await other.visit()
    assert not await process.visits.is_left(SLUG, 1)
    assert store.leases == 1


async def test_look_finds_the_visits_in_hand(monotonic):
    """The store has none left: this process leased them all."""
    store = ModelStore(8)
    process = Process(store, monotonic)
    process.leases.add_visits(SLUG, 1, 8, monotonic(), 0.0)
    store.taken = 8

    assert await process.visits.is_left(SLUG, 1)
    assert [await process.visit() for _ in range(9)] == [True] * 8 + [False]
    assert not await process.visits.is_left(SLUG, 1)


async def test_exhausted_quota_is_checked_once_a_second(monotonic):
    store = ModelStore(1)
    process = Process(store, monotonic)
    assert await process.visit()
    asked = store.leases

    assert [await process.visit() for _ in range(20)] == [False] * 20
    assert store.leases == asked + 1
    monotonic.now += EXHAUSTED_S
    store.taken -= 1  # another process gave it back
    assert await process.visit()


async def test_spent_lease_is_no_exhausted_quota(monotonic):
    """Not even to a data plane whose clock is behind: it asks for another lease."""
    store, leases = ModelStore(2), Leases()
    visits = VisitQuota(store, monotonic=monotonic, leases=leases)

    assert await visits.take(SLUG, 1)

    assert leases.take_visit(SLUG, 1, True, monotonic() - 0.01) == 1
    assert await visits.take(SLUG, 1)
    assert not await visits.take(SLUG, 1)


async def test_raised_limit_counts_from_its_version_on(monotonic):
    store = ModelStore(1)
    process = Process(store, monotonic)
    assert [await process.visit() for _ in range(2)] == [True, False]

    store.change(2)
    process.version = store.version

    assert [await process.visit() for _ in range(2)] == [True, False]


async def test_lowered_limit_ends_older_leases(monotonic):
    store = ModelStore(512)
    process = Process(store, monotonic)
    assert await process.visit()

    store.change(2)
    process.version = store.version

    assert [await process.visit() for _ in range(2)] == [True, False]
    assert store.taken == 2


async def test_removed_limit_is_unlimited(monotonic):
    store = ModelStore(1)
    process = Process(store, monotonic)
    await process.visit()
    store.change(None)
    process.version = store.version

    assert [await process.visit() for _ in range(10)] == [True] * 10


async def test_held_lease_outlasts_an_outage(monotonic):
    store = ModelStore(80)
    process = Process(store, monotonic)
    assert await process.visit()
    store.trouble = "refuses"

    assert [await process.visits.take(SLUG, 1) for _ in range(9)] == [True] * 9
    with pytest.raises(Unavailable):
        await process.visits.take(SLUG, 1)


async def test_idle_lease_is_returned(monotonic):
    store = ModelStore(80)
    process = Process(store, monotonic)
    assert await process.visit()

    monotonic.now += IDLE_S - 0.1
    await process.visits.give_back(idle_s=IDLE_S)
    assert store.taken == 10
    monotonic.now += 0.1
    await process.visits.give_back(idle_s=IDLE_S)

    assert store.taken == 1
    assert not process.leases._held


def test_what_is_left_of_an_exhausted_quota_goes_back():
    """Nothing more is to be had for a while, but what is held is not lost at the end of the process."""
    leases = Leases()
    leases.add_visits("spent", 1, 0, 0.0, 6.0)
    leases.add_visits("left", 1, 2, 0.0, 0.0)
    leases.add_visits("left", 1, 0, 0.0, 6.0)

    assert leases.idle_visits(5.0, 5.0) == ["left"]
    assert leases.drop_idle_visits("left", 5.0, 5.0) == 2
    assert leases.drop_idle_visits("spent", 5.0, 5.0) is None
    assert leases.drop_idle_visits("spent", 5.0, 6.0) == 0
