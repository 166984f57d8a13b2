"""Reservations and waiting: in order, on time, and within the rate."""

import asyncio
import os
import signal
import threading
import time
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hopgate_limiter import Decision, Limiter, ManualClock, Rate, RateLimitExceeded, Reservation
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budgets import examples

# A busy machine is no reason to fail.
quick = settings(max_examples=examples(60))

SECOND = 10**9
algorithms = pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])
steps = st.lists(
    st.tuples(st.sampled_from(["reserve", "hit"]), st.integers(1, 4), st.sampled_from([0, 0, 1, 7, 10, 35])),
    max_size=40,
)


def slots(limiter: Limiter, clock: ManualClock, costs: list[int]) -> list[int]:
    return [clock.now_ns + round(limiter.reserve("k", cost).delay * 1e9) for cost in costs]


@algorithms
@quick
@given(plan=steps)
def test_slots_keep_order_and_rate(algorithm, plan):
    """W1, TB1, SL1: slots never go back, no hit overtakes them, and together they keep the rate."""
    clock = ManualClock(1000)
    rate = Rate(4, "40ns")
    limiter = Limiter(rate, algorithm=algorithm, precision=5, clock=clock)
    taken: list[tuple[int, int]] = []
    for verb, cost, wait in plan:
        clock.advance(wait)
        if verb == "reserve":
            taken.append((clock.now_ns + round(limiter.reserve("k", cost).delay * 1e9), cost))
        elif limiter.allow("k", cost):
            taken.append((clock.now_ns, cost))

    assert all(a <= b for (a, _), (b, _) in pairwise(taken))
    for i, (start, _) in enumerate(taken):
        for total, (end, _) in zip(accumulate(c for _, c in taken[i:]), taken[i:], strict=True):
            if algorithm == "gcra":
                assert total <= 4 + Fraction(end - start, 10)
            elif end - start < 40:
                assert total <= 4


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_log"])
@quick
@given(plan=steps, cost=st.integers(0, 4))
def test_immediate_cancel_leaves_no_trace(algorithm, plan, cost):
    """TB16: reserve and cancel leave the state of the key unchanged."""
    clock = ManualClock(1000)
    limiter = Limiter("4/40ns; 9/100ns", algorithm=algorithm, clock=clock)
    twin = Limiter("4/40ns; 9/100ns", algorithm=algorithm, clock=clock)
    for verb, units, wait in plan:
        clock.advance(wait)
        extra = limiter.reserve("k", cost)
        extra.cancel()
        extra.cancel()
        if verb == "reserve":
            assert limiter.reserve("k", units).delay == twin.reserve("k", units).delay
        else:
            assert repr(limiter.hit("k", units)) == repr(twin.hit("k", units))


@algorithms
@quick
@given(plan=st.lists(st.tuples(st.sampled_from("rrhcf"), st.integers(1, 4), st.sampled_from([0, 1, 10, 35]))))
def test_cancelling_never_exceeds_the_rate(algorithm, plan):
    """TB1, SL1: after any cancellations and refunds, the remaining hits keep the rate."""
    clock = ManualClock(1000)
    limiter = Limiter(Rate(4, "40ns"), algorithm=algorithm, precision=5, clock=clock)
    reserved: list[tuple[Reservation, int, int]] = []
    hits: list[tuple[int, int]] = []
    for verb, number, wait in plan:
        clock.advance(wait)
        if verb == "r":
            slot = limiter.reserve("k", number)
            reserved.append((slot, clock.now_ns + round(slot.delay * 1e9), number))
        elif verb == "h" and limiter.allow("k", number):
            hits.append((clock.now_ns, number))
        elif verb == "c" and reserved:
            reserved.pop(-number % len(reserved))[0].cancel()
        elif verb == "f" and hits and hits[-1][0] == clock.now_ns:
            limiter.refund("k", hits.pop()[1])

    taken = sorted(hits + [(at, cost) for _, at, cost in reserved])
    for i, (start, _) in enumerate(taken):
        for total, (end, _) in zip(accumulate(c for _, c in taken[i:]), taken[i:], strict=True):
            if algorithm == "gcra":
                assert total <= 4 + Fraction(end - start, 10)
            elif end - start < 40:
                assert total <= 4


@algorithms
def test_cancel_in_the_middle_moves_no_slot(algorithm):
    """W3: later slots keep their times, and no other call gets one of them."""
    clock = ManualClock(SECOND)
    limiter = Limiter("1/s", algorithm=algorithm, precision=1000, clock=clock)
    assert limiter.allow("k")
    first, second, third = (limiter.reserve("k") for _ in range(3))
    delays = [first.delay, second.delay, third.delay]
    second.cancel()

    assert [first.delay, second.delay, third.delay] == delays
    assert round((limiter.reserve("k").delay - third.delay) * 1e9) >= SECOND
    assert not limiter.allow("k")


@algorithms
def test_refund_opens_no_reserved_slot(algorithm):
    """TB15 with waiters: a refund does not admit a new call into a reserved slot."""
    clock = ManualClock(SECOND)
    limiter = Limiter("1/s", algorithm=algorithm, precision=1000, clock=clock)
    assert limiter.allow("k")
    waiting = limiter.reserve("k")
    limiter.refund("k")
    assert round((limiter.reserve("k").delay - waiting.delay) * 1e9) >= SECOND


def test_reserved_slots_follow_the_rate():
    """TB14 with waiters: reserved slots start as early as a looser rate allows, and keep their order."""
    clock = ManualClock()
    limiter = Limiter("1/s burst 2", clock=clock)
    slots = [limiter.reserve("k") for _ in range(4)]
    assert [slot.delay for slot in slots] == [0, 0, 1.0, 2.0]
    limiter.configure("2/s burst 1")
    assert [slot.delay for slot in slots] == [0, 0, 0.5, 1.0]
    assert limiter.reserve("k").delay == 1.5


def test_reserved_slots_survive_a_tighter_rate():
    """TB14 with waiters: no slot starts later than promised; the new rate starts after the last."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    slots = [limiter.reserve("k") for _ in range(4)]
    limiter.configure("1/min")
    assert [slot.delay for slot in slots] == [0, 1.0, 2.0, 3.0]
    assert limiter.reserve("k").delay == 63.0


@algorithms
def test_waiters_get_distinct_slots(algorithm):
    """W2, class 21: waiters wake one after the other, not all at the first slot."""
    clock = ManualClock(SECOND)
    limiter = Limiter("1/s", algorithm=algorithm, clock=clock)
    starts = slots(limiter, clock, [1] * 5)
    assert all(b - a >= SECOND for a, b in pairwise(starts))


def test_large_cost_is_not_starved():
    """Class 23: small requests do not overtake a large one for ever (aiolimiter serves by size)."""
    clock = ManualClock()
    limiter = Limiter("10/s", clock=clock)
    assert limiter.allow("k", 10)
    large = limiter.reserve("k", 10)
    for _ in range(20):
        assert not limiter.allow("k")
        clock.advance(SECOND // 20)
    assert large.delay == 0.0
    assert limiter.reserve("k").delay == 0.1


def test_timeout_refuses_at_once_and_takes_nothing():
    """W4: refused at once if the slot starts after the timeout, with the time of the slot."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.acquire("k", timeout=0)
    refused = limiter.acquire("k", timeout=0.999)
    assert not refused
    assert refused.retry_after == 1.0
    with pytest.raises(RateLimitExceeded, match=r"'1/s', retry after 1.0 s") as caught:
        limiter.reserve("k", max_wait=0.5)
    assert caught.value.decision.retry_after == 1.0
    assert limiter.reserve("k", max_wait=1).delay == 1.0


@pytest.mark.parametrize("wait", [-1.0, float("nan")])
def test_bad_waits(wait):
    """A wait is at least 0 s."""
    limiter = Limiter("1/s")
    with pytest.raises(ValueError, match="timeout must be at least 0 s"):
        limiter.acquire("k", timeout=wait)
    with pytest.raises(ValueError, match="max_wait must be at least 0 s"):
        limiter.reserve("k", max_wait=wait)


@pytest.mark.parametrize("on_full", ["deny", "shared_bucket"])
def test_reservation_in_a_full_table(on_full):
    """Without room, a slot comes from the shared bucket, or there is none; cancelling gives it back there."""
    limiter = Limiter("1/s", max_keys=1, on_full=on_full, clock=ManualClock())
    assert limiter.allow("a")
    if on_full == "deny":
        with pytest.raises(RateLimitExceeded):
            limiter.reserve("b")
        return
    assert limiter.reserve("b").delay == 0.0
    second = limiter.reserve("c")
    assert second.delay == 1.0
    second.cancel()
    assert limiter.reserve("d").delay == 1.0
    assert limiter.reserve("a").delay == 1.0


def test_shadow_mode_never_waits():
    """shadow=True: acquire returns at once, marked."""
    limiter = Limiter("1/s", shadow=True, clock=ManualClock())
    assert limiter.acquire("k").source == "local"
    watched = limiter.acquire("k")
    assert watched
    assert watched.source == "shadow"
    late = limiter.reserve("k")
    late.cancel()
    assert late.delay == 0.0


def test_acquire_waits_for_the_clock():
    """acquire sleeps until the slot starts by the limiter's clock."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.acquire("k")
    done: list[Decision] = []
    thread = threading.Thread(target=lambda: done.append(limiter.acquire("k")))
    thread.start()
    while limiter.stats().allowed < 2:
        thread.join(0)
    clock.advance(SECOND - 1)
    assert done == []
    clock.advance(1)
    thread.join()

    assert done[0]
    assert done[0].retry_after == 0.0


def test_a_stopped_clock_costs_nothing():
    """Waiters for a manual clock sleep until it is moved, in threads and in tasks."""

    async def wait_in_a_task() -> Decision:
        return await limiter.acquire_async("k", timeout=5)

    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.acquire("k")
    threads = [
        threading.Thread(target=lambda: limiter.acquire("k", timeout=5)),
        threading.Thread(target=lambda: asyncio.run(wait_in_a_task())),
    ]
    for thread in threads:
        thread.start()
    while limiter.stats().allowed < 3:
        threads[0].join(0.01)
    before = time.process_time()
    threads[0].join(0.3)
    assert time.process_time() - before < 0.15
    clock.advance(2 * SECOND)
    for thread in threads:
        thread.join()


def test_context_manager_waits():
    """with limiter.reserve(...): the body runs in its slot."""
    limiter = Limiter("1000000/s burst 1")
    for _ in range(3):
        with limiter.reserve("k") as slot:
            assert isinstance(slot, Reservation)
            assert slot.delay == 0.0


async def test_async_context_manager_waits():
    """async with limiter.reserve(...): likewise."""
    limiter = Limiter("1000000/s burst 1")
    for _ in range(3):
        async with limiter.reserve("k") as slot:
            assert slot.delay == 0.0


async def test_async_waiters_are_served_in_order():
    """W1: tasks proceed in the order of their calls, each in its slot."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    served: list[int] = []

    async def client(number: int) -> None:
        assert await limiter.acquire_async("k", timeout=60)
        served.append(number)

    tasks = [asyncio.create_task(client(number)) for number in range(5)]
    for expected in range(1, 6):
        for _ in range(5):
            await asyncio.sleep(0)
        assert served == list(range(expected))
        clock.advance(SECOND)
    await asyncio.gather(*tasks)


async def test_cancelled_task_gives_its_slot_back():
    """W3: a cancelled last waiter leaves no trace; one that never started took nothing."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert await limiter.acquire_async("k")
    waiting = asyncio.create_task(limiter.acquire_async("k"))
    await asyncio.sleep(0)
    assert limiter.peek("k").reset_after == 2.0
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert limiter.peek("k").reset_after == 1.0

    unborn = asyncio.create_task(limiter.acquire_async("k"))
    unborn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unborn
    assert limiter.peek("k").reset_after == 1.0


def test_interrupted_wait_gives_its_slot_back():
    """An exception that ends the sleep (Ctrl-C) cancels the reservation."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.acquire("k")
    frozen = limiter.reserve("k")

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        with pytest.raises(KeyboardInterrupt), frozen:
            pytest.fail("the slot has not come")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert limiter.peek("k").reset_after == 1.0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_during_traffic():
    """A child forked while other threads decide can decide too: it inherits no locked lock."""
    limiter = Limiter("1/h burst 1000000")
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            limiter.hit("k")

    threads = [threading.Thread(target=traffic) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if limiter.hit("k").cost == 1 and limiter.stats().keys == 1 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_fork_copies_the_state():
    """Parent and child continue from the same state, independently."""
    limiter = Limiter("3/h")
    assert limiter.allow("k", 2)
    child = os.fork()
    if child == 0:
        os._exit(sum(limiter.allow("k") for _ in range(5)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert sum(limiter.allow("k") for _ in range(5)) == 1
