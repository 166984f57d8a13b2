"""Costs that never fit, reservations that are over, and limiters as context managers."""

import asyncio
import contextlib
import time
import weakref
from decimal import Decimal

import pytest
from hopgate_limiter import Limiter, ManualClock, RateLimitExceeded, _waiting

SECOND = 10**9


async def test_impossible_cost_is_an_error():
    """A cost above the burst is refused without a wait, by an error: a caller that waits ignores a result."""
    limiter = Limiter("1/s")
    with pytest.raises(ValueError, match=r"cost must be at most .* got 2"):
        limiter.acquire("k", 2)
    with pytest.raises(ValueError, match="cost must be at most"):
        await limiter.acquire_async("k", 2, timeout=1)
    with pytest.raises(ValueError, match="cost must be at most"), limiter.slot("k", 2):
        pytest.fail("entered")
    with pytest.raises(RateLimitExceeded, match="retry after inf") as refused:
        limiter.reserve("k", 2)
    assert isinstance(refused.value, ValueError)
    assert limiter.hit("k", 2).retry_after == float("inf")
    assert Limiter("1/s", shadow=True).acquire("k", 2)


async def test_slot_waits_at_each_entry():
    """with limiter.slot(...): each body runs in a slot of its own; too late a slot raises."""
    clock = ManualClock()
    limiter = Limiter("1/s burst 2", clock=clock)
    slot = limiter.slot("k", timeout=0.5)
    with slot as decision:
        assert decision.remaining == 1
    async with slot as decision:
        assert decision.remaining == 0
    with pytest.raises(RateLimitExceeded) as refused, slot:
        pytest.fail("entered")
    assert refused.value.decision.retry_after == 1.0
    with pytest.raises(RateLimitExceeded):
        async with slot:
            pytest.fail("entered")


async def test_slot_inside_of_itself_takes_units_of_its_own():
    limiter = Limiter("5/h")
    slot = limiter.slot("k", timeout=0)
    with slot, slot as inner:
        assert inner.remaining == 3
    async with slot, slot as inner:
        assert inner.remaining == 1
    with slot, pytest.raises(RateLimitExceeded):
        slot.__enter__()


async def test_slot_of_several_tasks_and_threads():
    """One object, entered at once: served one after the other, each with units of its own."""
    clock = ManualClock()
    limiter = Limiter("1/s burst 1", clock=clock)
    slot = limiter.slot("k")
    entered: list[str] = []

    async def task() -> None:
        async with slot:
            entered.append("task")

    def thread() -> None:
        with slot:
            entered.append("thread")

    works = [asyncio.create_task(each) for each in (task(), task(), asyncio.to_thread(thread))]
    for number in range(1, 4):
        while limiter.stats().allowed < 3 or len(entered) < number:
            await asyncio.sleep(0.001)
        assert len(entered) == number
        clock.advance(SECOND)
    await asyncio.gather(*works)
    assert limiter.peek("k").remaining == 1


@pytest.mark.parametrize("waiting", ["task", "thread"])
async def test_reservation_that_another_cancels_admits_nothing(waiting):
    """It waits no longer, its body does not run, and the slot is free."""
    limiter = Limiter("1/h", clock=ManualClock())
    assert limiter.allow("k")
    reservation = limiter.reserve("k")

    async def task() -> None:
        async with reservation:
            pytest.fail("entered")

    def thread() -> None:
        with reservation:
            pytest.fail("entered")

    work = asyncio.create_task(task() if waiting == "task" else asyncio.to_thread(thread))
    while reservation._id not in _waiting._SLEEPERS:
        await asyncio.sleep(0.001)
    reservation.cancel()

    with pytest.raises(RuntimeError, match="used or cancelled"):
        await asyncio.wait_for(work, 20)
    assert limiter.peek("k").retry_after == 3600.0


async def test_reservation_is_entered_by_one_task():
    """The second is refused at once, and takes nothing of the first."""
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.allow("k")
    reservation = limiter.reserve("k")
    entered = []

    async def task(number: int) -> None:
        async with reservation:
            entered.append(number)

    first, second = asyncio.create_task(task(1)), asyncio.create_task(task(2))
    with pytest.raises(RuntimeError, match="used or cancelled"):
        await second
    assert not first.done()
    clock.advance(SECOND)
    await asyncio.wait_for(first, 20)
    assert entered == [1]
    assert limiter.peek("k").retry_after == 1.0


async def test_limiter_as_a_context_manager_limits():
    """with limiter: one unit of a limiter without keys. It closes nothing."""
    limiter = Limiter("20/s burst 2")
    start = time.monotonic()
    for _ in range(2):
        with limiter:
            assert limiter.hit("", 0).remaining < 2
        async with limiter as entered:
            assert entered is limiter
    assert time.monotonic() - start >= 0.099


async def test_timeouts_are_numbers_of_any_kind():
    """The calls with a queue and those without one take the same."""
    limiter = Limiter("100/s")
    for rates in (None, "100/s"):
        assert limiter.acquire("k", timeout=Decimal("0.5"), rates=rates)  # type: ignore[arg-type]
        assert await limiter.acquire_async("k", timeout=Decimal("0.5"), rates=rates)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout must be a number of seconds"):
            limiter.acquire("k", timeout=10**400, rates=rates)
        with pytest.raises(ValueError, match="timeout must be a number of seconds"):
            await limiter.acquire_async("k", timeout=10**400, rates=rates)


def test_slot_takes_weak_references():
    slot = Limiter("1/s").slot("k")
    assert weakref.ref(slot)() is slot


@pytest.mark.parametrize("end", ["cancelled", "used", "used async", "interrupted"])
async def test_a_reservation_that_is_over_admits_nothing(end):
    clock = ManualClock()
    limiter = Limiter("1/h", clock=clock)
    reservation = limiter.reserve("k")
    if end == "cancelled":
        reservation.cancel()
    elif end == "used":
        with reservation:
            pass
    elif end == "used async":
        async with reservation:
            pass
    else:
        reservation = limiter.reserve("k")
        waiting = asyncio.ensure_future(reservation.__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    before = limiter.peek("k").remaining

    with pytest.raises(RuntimeError, match="used or cancelled"), reservation:
        pass
    with pytest.raises(RuntimeError, match="used or cancelled"):
        async with reservation:
            pass

    assert limiter.peek("k").remaining == before
