"""Costs that never fit, and limiters as context managers."""

import time
import weakref
from decimal import Decimal

import pytest
from hopgate_limiter import Limiter, ManualClock, RateLimitExceeded


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
