"""Several rates at once: all or nothing, in any order."""

from itertools import permutations
from math import inf

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budgets import examples

# A busy machine is no reason to fail.
quick = settings(max_examples=examples(60))

rate_sets = st.lists(
    st.builds(
        lambda limit, period: (limit, period),
        st.integers(1, 12),
        st.sampled_from([1_000, 10_007, 10**6]),
    ),
    min_size=1,
    max_size=4,
).map(lambda pairs: [Rate(n, f"{p}ns", name=f"r{i}") for i, (n, p) in enumerate(pairs)])
calls = st.lists(st.tuples(st.integers(0, 200_000) | st.just(0), st.integers(0, 6)), min_size=1, max_size=40)


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])
@quick
@given(rates=rate_sets, steps=calls)
def test_all_rates_agree_or_none_is_charged(algorithm, rates, steps):
    """CMP: a composite is admitted iff each part, charged with exactly the admitted calls, would admit it."""
    clock = ManualClock()
    whole = Limiter(*rates, algorithm=algorithm, clock=clock)
    parts = [Limiter(rate, algorithm=algorithm, clock=clock) for rate in rates]
    for wait, cost in steps:
        clock.advance(wait)
        peeked = [part.peek("k", cost) for part in parts]
        expected = all(peeked)

        decision = whole.hit("k", cost)

        assert decision.allowed is expected
        if expected:
            peeked = [part.hit("k", cost) for part in parts]
        assert decision.remaining == min(part.remaining for part in peeked)
        assert decision.retry_after == max(part.retry_after for part in peeked)
        assert decision.reset_after == max(part.reset_after for part in peeked)
        named = next(p for p in peeked if p.policy == decision.policy)
        assert decision.limit == named.limit
        if expected:
            assert named.remaining == decision.remaining
        else:
            assert named.retry_after == decision.retry_after


@quick
@given(rate_sets, calls)
def test_rate_order_does_not_matter(rates, steps):
    """CMP: the same rates in any order give the same decisions, policy included."""
    clock = ManualClock()
    limiters = [Limiter(*order, clock=clock) for order in permutations(rates)]
    for wait, cost in steps:
        clock.advance(wait)
        assert len({repr(limiter.hit("k", cost)) for limiter in limiters}) == 1


@quick
@given(rate_sets, calls)
def test_composite_retry_after_is_exact(as_ns, rates, steps):
    """TB2 for several rates: sufficient, and minimal to the nanosecond."""
    clock = ManualClock()
    limiter = Limiter(*rates, clock=clock)
    for wait, cost in steps:
        clock.advance(wait)
        decision = limiter.hit("k", cost)
        if decision or decision.retry_after == inf:
            continue
        clock.advance(as_ns(decision.retry_after) - 1)
        assert not limiter.peek("k", cost)
        clock.advance(1)
        assert limiter.peek("k", cost)


def test_refusal_by_second_rate_charges_neither():
    """A call that the hourly rate refuses is not charged to the rate per second."""
    clock = ManualClock()
    limiter = Limiter("4/s; 5/h", clock=clock)
    assert limiter.allow("k", 4)
    clock.advance(10**9)
    assert not limiter.allow("k", 2)
    assert limiter.peek("k").policy == "5/h"
    assert limiter.allow("k", 1)
    limiter.configure("4/s")
    assert limiter.peek("k").remaining == 3


def test_rates_continue_by_name_then_position():
    """configure: a rate keeps its debt when an earlier rate is removed, and when only its numbers change."""
    clock = ManualClock()
    limiter = Limiter("5/s; 100/h", clock=clock)
    assert limiter.allow("k", 5)
    limiter.configure("100/h")
    assert limiter.peek("k").remaining == 95
    limiter.configure("200/h")
    assert limiter.peek("k").remaining == 195
    limiter.configure("200/h", "7/s")
    assert limiter.peek("k").remaining == 7
    assert limiter.peek("k").policy == "7/s"


def test_bad_configuration_changes_nothing():
    """configure is atomic: an error leaves the old rates in force."""
    limiter = Limiter("5/h", clock=ManualClock())
    assert limiter.allow("k", 4)
    for bad in ((), ("5/h", "5/h"), ("5/fortnight",)):
        with pytest.raises(ValueError):
            limiter.configure(*bad)
    assert limiter.peek("k").remaining == 1


def test_rates_need_different_names():
    """Two rates of one name could not be distinguished in a decision."""
    with pytest.raises(ValueError, match="two rates are named 'a'"):
        Limiter(Rate(1, "s", name="a"), Rate(10, "min", name="a"))
    assert Limiter(Rate(1, "s", name="a"), Rate(10, "min", name="b")).allow("k")
