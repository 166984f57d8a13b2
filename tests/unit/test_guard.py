from __future__ import annotations

import asyncio
import itertools

import pytest

from app.domain.errors import Unavailable
from app.resilience.breaker import BreakerPolicy, State
from app.resilience.deadline import left_s, within
from app.resilience.guard import Guard, Limits
from app.resilience.retry import RetryBudget

LIMITS = Limits(max_running=2, max_waiting=1, wait_s=0.01, call_s=10)
POLICY = BreakerPolicy(min_calls=2)


class Dependency:
    """Does what it is told, and counts how often it was asked."""

    def __init__(self, *outcomes: object) -> None:
        self.asked = 0
        self._outcomes = itertools.chain(outcomes, itertools.repeat("well"))

    async def __call__(self) -> object:
        self.asked += 1
        outcome = next(self._outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def down() -> Unavailable:
    return Unavailable("it", "refused")


def lost() -> Unavailable:
    return Unavailable("it", "went away", was_lost=True)


@pytest.fixture
def guard(monotonic):
    return Guard("it", LIMITS, POLICY, budget=RetryBudget(), monotonic=monotonic, random=lambda: 0.0)


async def test_an_open_breaker_answers_at_once_and_asks_nobody(guard):
    dependency = Dependency(down(), down())
    for _ in range(2):
        with pytest.raises(Unavailable, match="refused"):
            await guard.call(dependency)

    with pytest.raises(Unavailable, match="left alone"):
        await guard.call(dependency)

    assert dependency.asked == 2
    assert guard.snapshot().state is State.OPEN
    assert guard.snapshot().refused_total == 1


async def test_it_comes_back_by_itself(guard, monotonic):
    dependency = Dependency(down(), down())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await guard.call(dependency)

    monotonic.now += 1
    assert [await guard.call(dependency) for _ in range(3)] == ["well"] * 3

    assert guard.snapshot().state is State.CLOSED


async def test_mistakes_of_this_program_say_nothing_about_the_dependency(guard):
    for _ in range(5):
        with pytest.raises(ValueError, match="ours"):
            await guard.call(Dependency(ValueError("ours")))

    assert guard.snapshot().calls == 0


async def test_a_cancelled_call_says_nothing_and_makes_room(guard):
    for _ in range(5):
        call = asyncio.create_task(guard.call(asyncio.Event().wait))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    snapshot = guard.snapshot()
    assert (snapshot.calls, snapshot.running, snapshot.state) == (0, 0, State.CLOSED)


async def test_no_answer_in_time_is_a_failure(monotonic):
    guard = Guard(
        "it", Limits(max_running=1, max_waiting=0, wait_s=0, call_s=0.01), POLICY, monotonic=monotonic
    )
    for _ in range(2):
        with pytest.raises(Unavailable, match="no answer within"):
            await guard.call(asyncio.Event().wait)

    assert guard.snapshot().state is State.OPEN


async def test_a_call_is_given_no_more_time_than_its_request_has_left(guard):
    """And a request that came with too little time left does not count against the dependency."""
    async with within(0.05):
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"no answer|deadline"):
                await Guard("it", LIMITS, POLICY).call(asyncio.Event().wait)

    assert left_s(0.0) > 1e9


async def test_a_shorter_deadline_inside_a_longer_one_holds_and_not_the_other_way_round():
    now = lambda: 100.0  # noqa: E731
    async with within(2, monotonic=now):
        async with within(50, monotonic=now):
            assert left_s(100.0) == pytest.approx(2, abs=0.01)
        async with within(1, monotonic=now):
            assert left_s(100.0) == pytest.approx(1, abs=0.01)
        assert left_s(100.0) == pytest.approx(2, abs=0.01)


async def test_too_many_at_once_wait_a_little_and_the_rest_is_refused(guard):
    release = asyncio.Event()
    calls = [asyncio.create_task(guard.call(release.wait)) for _ in range(2)]
    await asyncio.sleep(0)

    results = await asyncio.gather(*(guard.call(Dependency()) for _ in range(3)), return_exceptions=True)
    release.set()
    await asyncio.gather(*calls)

    assert [type(result) for result in results] == [Unavailable] * 3
    assert guard.snapshot().crowded_total == 3
    assert guard.snapshot().failures == 0


async def test_a_read_whose_connection_was_lost_is_done_once_more(guard):
    assert await guard.read(Dependency(lost())) == "well"
    assert guard.snapshot().retried_total == 1


async def test_a_read_is_done_twice_at_most(guard):
    dependency = Dependency(lost(), lost())
    with pytest.raises(Unavailable):
        await guard.read(dependency)

    assert dependency.asked == 2


async def test_a_write_and_a_read_that_was_refused_are_not_done_again(guard):
    for call, dependency in ((guard.call, Dependency(lost())), (guard.read, Dependency(down()))):
        with pytest.raises(Unavailable):
            await call(dependency)

        assert dependency.asked == 1


async def test_retries_end_with_their_budget(monotonic):
    guard = Guard(
        "it",
        LIMITS,
        BreakerPolicy(min_calls=10**9),
        budget=RetryBudget(ratio=0.1, min_per_s=0),
        monotonic=monotonic,
        random=lambda: 0.0,
    )
    dependency = Dependency(*(lost() for _ in range(1000)))
    for _ in range(100):
        with pytest.raises(Unavailable):
            await guard.read(dependency)

    assert dependency.asked == 110


async def opened(guard: Guard, dependency: Dependency) -> None:
    """Have two calls fail: one that somebody waited for, and one aside."""
    for reason in ("refused", "tried again"):
        with pytest.raises(Unavailable, match=reason):
            await guard.call(dependency)
    for _ in range(3):
        await asyncio.sleep(0)
    assert guard.snapshot().state is State.OPEN


async def test_probes_aside_keep_nobody_waiting_and_close_it_all_the_same(monotonic):
    guard = Guard("it", LIMITS, POLICY, probes_aside=True, monotonic=monotonic, random=lambda: 0.5)
    dependency = Dependency(down(), down())
    await opened(guard, dependency)
    monotonic.now += POLICY.open_s
    answer = asyncio.Event()

    async def silent() -> object:
        await answer.wait()
        return await dependency()

    for _ in range(POLICY.probes):
        with pytest.raises(Unavailable, match="tried again"):
            await guard.call(silent)
    answer.set()
    for _ in range(3):
        await asyncio.sleep(0)

    assert await guard.call(dependency) == "well"
    assert guard.snapshot().state is State.CLOSED


async def test_with_probes_aside_one_failure_keeps_all_others_from_waiting(monotonic):
    """Until it is known that it was only one: long before the breaker could open."""
    guard = Guard("it", LIMITS, BreakerPolicy(), probes_aside=True, monotonic=monotonic)
    dependency = Dependency(down())
    with pytest.raises(Unavailable, match="refused"):
        await guard.call(dependency)

    with pytest.raises(Unavailable, match="tried again"):
        await guard.call(dependency)
    await asyncio.sleep(0)

    assert dependency.asked == 2
    assert await guard.call(dependency) == "well"


async def test_of_a_silent_dependency_only_so_many_are_tried_aside(monotonic):
    guard = Guard("it", LIMITS, BreakerPolicy(probes=3), probes_aside=True, monotonic=monotonic)
    with pytest.raises(Unavailable, match="refused"):
        await guard.call(Dependency(down()))
    silent = Dependency()

    async def ask() -> None:
        await silent()
        await asyncio.Event().wait()

    for _ in range(100):
        with pytest.raises(Unavailable, match="tried again"):
            await guard.call(ask)
        await asyncio.sleep(0)

    assert silent.asked == 3
    assert guard.snapshot().running == 0


async def test_a_probe_aside_that_fails_opens_it_again(monotonic):
    guard = Guard("it", LIMITS, POLICY, probes_aside=True, monotonic=monotonic, random=lambda: 0.5)
    dependency = Dependency(down(), down(), down())
    await opened(guard, dependency)
    monotonic.now += POLICY.open_s

    with pytest.raises(Unavailable, match="tried again"):
        await guard.call(dependency)
    for _ in range(3):
        await asyncio.sleep(0)

    assert dependency.asked == 3
    assert guard.snapshot().state is State.OPEN
