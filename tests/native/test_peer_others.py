"""The scenarios of the suites of PyrateLimiter, aiolimiter and governor, replayed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from hopgate_limiter import CostTooLargeError, Limiter, ManualClock, Rate

from tests.native.peers import Scenario, run, scenarios, script

LOG: Final = "sliding_log"
S = 10**9


class Waiters:
    """Tasks that wait for one key, and the clock they wait by."""

    def __init__(self, rates: str) -> None:
        self.clock = ManualClock()
        self.limiter = Limiter(rates, clock=self.clock)
        self.tasks: list[asyncio.Task] = []

    def add(self, *calls: Callable[[], Awaitable[object]]) -> None:
        self.tasks += [asyncio.ensure_future(call()) for call in calls]

    def acquire(self, *costs: int) -> None:
        self.add(*[lambda cost=cost: self.limiter.acquire_async("k", cost) for cost in costs])

    async def done_after(self, seconds: float) -> int:
        """Return how many are done some seconds after the start."""
        self.clock.set(round(seconds * S))
        for _ in range(50):
            await asyncio.sleep(0)
        return sum(task.done() for task in self.tasks)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


# --- PyrateLimiter -------------------------------------------------------------------------


def several_rates_of_one_limiter() -> None:
    limiter = Limiter(Rate(3, 1), Rate(4, 2), clock=ManualClock())
    assert [(rate.limit, rate.period_ns) for rate in limiter.rates] == [(3, S), (4, 2 * S)]


def rates_in_any_order() -> None:
    assert Limiter("10/min, 3/s", clock=ManualClock()).allow("k", 3)
    assert Limiter("3/min; 1/day", clock=ManualClock()).hit("k").policy == "1/day"


def no_rates() -> None:
    with pytest.raises(ValueError, match="at least one rate"):
        Limiter()


def long_bounds_hold() -> None:
    clock = ManualClock()
    limiter = Limiter("30/s, 50/2s", algorithm=LOG, clock=clock)
    taken: list[int] = []
    while len(taken) < 150:
        if limiter.allow("k"):
            taken.append(clock.now_ns)
        else:
            clock.advance(S // 100)
    assert [taken[index] >= seconds * S for index, seconds in ((30, 1), (50, 2), (80, 3), (100, 4))] == [
        True
    ] * 4


async def delay_until_the_long_rate_allows() -> None:
    waiters = Waiters("1/s burst 3, 3/5s")
    waiters.acquire(1, 1, 1, 1)
    assert await waiters.done_after(0) == 3
    assert await waiters.done_after(1.6) == 3
    assert await waiters.done_after(1.7) == 4
    await waiters.end()


def window_availability() -> None:
    clock = ManualClock()
    limiter = Limiter("3/s", algorithm=LOG, clock=clock)
    for _ in range(3):
        assert limiter.allow("k")
        clock.advance(S // 5)
    for cost in (1, 2, 3):
        refused = limiter.hit("k", cost)
        assert not refused
        clock.advance(round(refused.retry_after * S) - 1)
        assert not limiter.hit("k", cost)
        clock.advance(1)
        assert limiter.hit("k", cost)


def leaks_no_memory() -> None:
    clock = ManualClock()
    limiter = Limiter("100/3s", algorithm=LOG, clock=clock)
    assert sum(limiter.allow("k") for _ in range(200)) == 100
    clock.advance(3 * S + 1)
    assert limiter.peek("k").remaining == 100


async def raises_on_a_long_delay() -> None:
    waiters = Waiters("3/s")
    waiters.acquire(3)
    await waiters.done_after(0)
    refused = await waiters.limiter.acquire_async("k", 3, timeout=0.5)
    assert not refused
    assert refused.retry_after == pytest.approx(1.0)
    await waiters.end()


async def waits_below_the_delay() -> None:
    waiters = Waiters("3/s")
    waiters.acquire(3)
    waiters.add(lambda: waiters.limiter.acquire_async("k", 3, timeout=2))
    assert [await waiters.done_after(seconds) for seconds in (0, 0.9, 1.001)] == [1, 1, 2]


def weight_above_the_limit() -> None:
    limiter = Limiter("3/s")
    with pytest.raises(CostTooLargeError):
        limiter.acquire("k", 5)


async def asynchronous_concurrency() -> None:
    limiter = Limiter("3/s, 4/2s", clock=ManualClock())
    decisions = await asyncio.gather(*[limiter.hit_async("demo") for _ in range(4)])
    assert sum(bool(decision) for decision in decisions) == 3


def retries_until_the_delay_is_over() -> None:
    limiter = Limiter("10/s", clock=ManualClock())
    assert [bool(limiter.acquire("k", timeout=0)) for _ in range(20)] == [True] * 10 + [False] * 10


def clocks() -> None:
    class Own:
        now_ns = 5 * S

    for clock in (None, ManualClock(7), Own()):
        assert Limiter("1/s", clock=clock).allow("k")


def text_of_a_rate() -> None:
    rates = [Rate(1000, "s"), Rate(1000, "3s"), Rate(1000, 3.5), Rate(1000, "3.5 min"), Rate(1, "week")]
    assert [str(rate) for rate in rates] == ["1000/s", "1000/3s", "1000/3500ms", "1000/210s", "1/7d"]
    assert eval(repr(rates[2])) == rates[2]


def durations() -> None:
    texts = "s min h d w".split()
    assert [Rate(1, text).period_ns // S for text in texts] == [1, 60, 3600, 86_400, 604_800]


PYRATE = [
    Scenario("rates", several_rates_of_one_limiter),
    Scenario(
        "rates_in_order",
        rates_in_any_order,
        "rates may come in any order and need not follow from one another",
    ),
    Scenario("no_rates", no_rates),
    script("bucket", "20/s", "hit hit10 left9 no20 hit9 left0 no +2 hit +2 never30", LOG),
    Scenario("bucket_of_two_rates", long_bounds_hold),
    Scenario("availability", window_availability),
    Scenario("leak", leaks_no_memory),
    script("flush", "5000/s", "hit5000 no clear left5000 hit5000", LOG),
    script(
        "large_items", "10000/s, 20000/3s, 30000/5s", "hit10000 no +1 hit10000 no +1 no +1 hit10000 no", LOG
    ),
    script("weight_0_passes", "3/s", "hit0 left3 hit3 hit0 no", LOG),
    Scenario("no_wait", retries_until_the_delay_is_over),
    Scenario(
        "delay_too_long", raises_on_a_long_delay, "a wait above `timeout` is a refusal, not an exception"
    ),
    Scenario("delay_short_enough", waits_below_the_delay),
    Scenario("delay_by_the_long_rate", delay_until_the_long_rate_allows),
    Scenario("weight_above_the_limit", weight_above_the_limit),
    Scenario("concurrency", asynchronous_concurrency),
    Scenario("clocks", clocks),
    Scenario("rate_text", text_of_a_rate),
    Scenario("durations", durations),
]


# --- aiolimiter ----------------------------------------------------------------------------


def attributes() -> None:
    [rate] = Limiter("42/81s").rates
    assert (rate.limit, rate.period_ns) == (42, 81 * S)


async def has_capacity() -> None:
    limiter = Limiter("1/min", clock=ManualClock())
    assert limiter.peek()
    assert not limiter.peek(cost=42)
    await limiter.acquire_async()
    assert not limiter.peek()


async def acquires_in_turn() -> None:
    waiters = Waiters("5/10s")
    waiters.acquire(*[1] * 10)
    assert [await waiters.done_after(seconds) for seconds in (0, 3, 7, 11)] == [5, 6, 8, 10]


async def enters_in_turn() -> None:
    waiters = Waiters("5/10s")

    async def enter() -> None:
        async with waiters.limiter:
            pass

    waiters.add(*[enter] * 10)
    assert [await waiters.done_after(seconds) for seconds in (0, 3, 7, 11)] == [5, 6, 8, 10]


async def over_acquire() -> None:
    with pytest.raises(ValueError, match="cost must be at most"):
        await Limiter("1/min").acquire_async(cost=42)


async def waits_as_long_as_it_must() -> None:
    waiters = Waiters("3/3s")
    waiters.acquire(1, 3)
    assert [await waiters.done_after(seconds) for seconds in (0, 0.999, 1)] == [1, 1, 2]


async def small_cost_does_not_overtake() -> None:
    waiters = Waiters("3/3s")
    waiters.acquire(1, 3, 1)
    assert [await waiters.done_after(seconds) for seconds in (0, 1, 1.5, 2)] == [1, 2, 2, 3]


async def cancelled_task_gives_way() -> None:
    waiters = Waiters("3/3s")
    waiters.acquire(1, 3, 3)
    await waiters.done_after(0)
    waiters.tasks.pop(1).cancel()
    assert [await waiters.done_after(seconds) for seconds in (0.999, 1)] == [1, 2]


def several_loops() -> None:
    limiter = Limiter("1/s")

    async def use() -> None:
        tasks = [asyncio.ensure_future(limiter.acquire_async("k")) for _ in range(5)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(use())
    asyncio.run(use())


def version() -> None:
    import hopgate_limiter

    assert hopgate_limiter.__version__


AIOLIMITER = [
    Scenario("version", version),
    Scenario("attributes", attributes),
    Scenario("has_capacity", has_capacity),
    Scenario("over_acquire", over_acquire),
    Scenario("acquire", acquires_in_turn),
    Scenario("context_manager", enters_in_turn),
    Scenario("wait_time", waits_as_long_as_it_must),
    Scenario(
        "decreasing_acquire",
        small_cost_does_not_overtake,
        "callers are served in the order of their calls: a small cost does not starve a large one",
    ),
    Scenario("cancelled_task", cancelled_task_gives_way),
    Scenario("several_loops", several_loops, "a limiter belongs to no loop, so there is nothing to warn of"),
]


# --- governor ------------------------------------------------------------------------------


def exact_waits() -> None:
    clock = ManualClock()
    limiter = Limiter("5/s", clock=clock)
    for _ in range(20):
        clock.advance(S // 1000)
        decision = limiter.hit("k")
        if not decision:
            clock.advance(round(decision.retry_after * S))
            assert limiter.allow("k")


def threads() -> None:
    clock = ManualClock()
    limiter = Limiter("20/s", clock=clock)
    workers = [threading.Thread(target=limiter.allow, args=["k"]) for _ in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    clock.advance(2 * S // 1000)
    assert not limiter.allow("k")
    clock.advance(998 * S // 1000)
    assert limiter.allow("k", 20)


def large_quotas() -> None:
    limiter = Limiter("1000000001/s")
    assert all(limiter.allow("k") for _ in range(100_000))


async def pauses_for_several() -> None:
    waiters = Waiters("10/s")
    assert waiters.limiter.allow("k", 6)
    waiters.acquire(5)
    assert [await waiters.done_after(seconds) for seconds in (0, 0.099, 0.1)] == [0, 0, 1]


def keys_that_are_new_again_go() -> None:
    clock = ManualClock()
    limiter = Limiter("20/s", clock=clock)
    assert limiter.allow("long-lived", 10)
    assert limiter.allow("short-lived")
    assert limiter.stats().keys == 2
    clock.advance(300 * S // 1000)
    for number in range(5000):
        limiter.allow(number)
    assert limiter.stats().evicted_idle == 1
    assert limiter.peek("long-lived").remaining == 16


GOVERNOR = [
    script("accepts_first_cell", "5/s", "hit"),
    script("check_only_consumes_nothing", "3/s", "fit*2 fit3*2"),
    script("rejects_too_many", "2/s", "hit +0.001 hit +0.001 no +1 hit +0.001 hit +0.001 no"),
    script("no_extra_cell_after_a_long_interval", "5/s", "hit*5 no +2 hit*5 no +8.9 hit*5 no"),
    script("rejects_too_many_check_only", "2/s", "hit +0.001 hit +0.001 full +1 hit +0.001 hit +0.001 full"),
    script(
        "consume_and_check_only", "2/s", "fit hit +0.001 fit hit +0.001 full +1 fit hit +0.001 fit hit full"
    ),
    script(
        "borrow_from_the_future",
        "2/s",
        "hit2 no2 +1 hit2",
        by_design="units that are not there are not spent: `reserve` takes a slot in the future instead",
    ),
    script("never_more_than_capacity", "4/s", "hit2*2 +0.001 no2 +1 hit2 +0.001 hit2 +0.001 no2"),
    script("capacity_check", "5/s", "never15 never7 never6 hit5 +3 never15"),
    Scenario("correct_wait_time", exact_waits),
    Scenario("actual_threadsafety", threads),
    Scenario("large_quotas", large_quotas),
    script("keyed", "2/s", "a:hit*2 b:hit*2 a:no b:no +1 b:hit*2 a:hit*2"),
    script(
        "keyed_peek_and_reset",
        "2/s",
        "fit*10 hit fit*10 hit full*10 no clear fit*10 hit clear hit*2 full*10 no",
    ),
    Scenario("keyed_expiration", keys_that_are_new_again_go),
    Scenario("pauses_for_several", pauses_for_several),
]


@scenarios("pyrate", PYRATE)
def test_pyrate_scenario(scenario):
    run(scenario)


@scenarios("aiolimiter", AIOLIMITER)
def test_aiolimiter_scenario(scenario):
    run(scenario)


@scenarios("governor", GOVERNOR)
def test_governor_scenario(scenario):
    run(scenario)


def test_all_are_here():
    assert [len(PYRATE), len(AIOLIMITER), len(GOVERNOR)] == [19, 10, 16]
