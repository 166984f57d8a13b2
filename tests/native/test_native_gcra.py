"""The token bucket against exact rationals, on a manual clock."""

from fractions import Fraction
from itertools import accumulate
from math import inf

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.budgets import examples

# A busy machine is no reason to fail.
quick = settings(max_examples=examples(60))

BIG = 2**63 - 1

rates = st.builds(
    lambda limit, period, burst: Rate(limit, f"{period}ns", burst=burst),
    st.integers(1, 50) | st.sampled_from([1_000, 1_000_003]),
    st.sampled_from([1_000, 999_999_937, 10**9, 60 * 10**9, 3600 * 10**9]),
    st.integers(1, 30),
).filter(lambda rate: rate.limit <= rate.period_ns)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Rate, list[tuple[int, int]]]:
    """A rate, and steps (ns to wait, cost), with waits around the times at which something changes."""
    rate = draw(rates)
    token_ns = -(-rate.period_ns // rate.limit)
    waits = st.builds(lambda n, off: max(0, n * token_ns + off), st.integers(0, 3), st.integers(-1, 1))
    waits |= st.just(0) | st.integers(0, 40 * token_ns)
    steps = draw(st.lists(st.tuples(waits, st.integers(0, rate.burst + 2)), min_size=1, max_size=40))
    return rate, steps


def fresh(rate: Rate, now: int = 0) -> tuple[Limiter, ManualClock]:
    clock = ManualClock(now)
    return Limiter(rate, clock=clock), clock


@quick
@given(histories())
def test_decisions_agree_with_exact_rationals(bucket, as_ns, history):
    """Every field of every decision equals exact arithmetic (TB1, TB2, TB5, TB7)."""
    rate, steps = history
    limiter, clock = fresh(rate)
    model = bucket(rate)
    for wait, cost in steps:
        clock.advance(wait)
        model.now += wait
        delay = model.wait(cost)
        expected = model.hit(cost)

        decision = limiter.hit("k", cost)

        assert decision.allowed is bool(decision) is expected
        assert decision.remaining == model.tokens() // 1
        assert as_ns(decision.reset_after) == -(-max(0, model.full_at - model.now) // 1)
        if expected:
            assert decision.retry_after == 0.0
        elif cost > rate.burst:
            assert decision.retry_after == inf
        else:
            assert as_ns(decision.retry_after) == -(-delay // 1)


@quick
@given(histories())
def test_admissions_never_exceed_the_exact_rate(history):
    """TB1: any admitted i ≤ j carry at most burst + (t_j − t_i) · limit / period units."""
    rate, steps = history
    limiter, clock = fresh(rate)
    admitted = []
    for wait, cost in steps:
        clock.advance(wait)
        if limiter.allow("k", cost):
            admitted.append((clock.now_ns, cost))

    for i, (start, _) in enumerate(admitted):
        for total, (end, _) in zip(accumulate(c for _, c in admitted[i:]), admitted[i:], strict=True):
            assert total <= rate.burst + Fraction(end - start) * rate.limit / rate.period_ns


@quick
@given(rates, st.integers(1, 200))
def test_backlog_is_served_at_the_full_rate(rate, polls):
    """TB1′: with demand always waiting, no fraction is ever lost (one part in a million for rounding)."""
    # With room for one token only, tokens that flow in between two polls overflow by design.
    limiter, clock = fresh(Rate(rate.limit, f"{rate.period_ns}ns", burst=rate.burst + 1))
    assert limiter.allow("k", rate.burst + 1)
    step = max(1, rate.period_ns // rate.limit // 3)
    admitted = 0
    for _ in range(polls):
        clock.advance(step)
        while limiter.allow("k"):
            admitted += 1

    exact = Fraction(polls * step * rate.limit, rate.period_ns)
    assert admitted >= int(exact * (1 - Fraction(1, 10**6)))
    assert admitted <= exact


@quick
@given(histories())
def test_retry_after_is_sufficient_and_minimal(as_ns, history):
    """TB2: refused now, admitted after retry_after, and still refused one nanosecond earlier."""
    rate, steps = history
    limiter, clock = fresh(rate)
    for wait, cost in steps:
        clock.advance(wait)
        decision = limiter.hit("k", cost)
        if decision or decision.retry_after == inf:
            continue
        delay = as_ns(decision.retry_after)

        clock.advance(delay - 1)
        assert not limiter.peek("k", cost)
        clock.advance(1)
        assert limiter.peek("k", cost)
        assert limiter.hit("k", cost)


@quick
@given(histories(), st.integers(1, 40))
def test_refused_calls_leave_no_trace(history, extra):
    """TB3: a run with refused and zero-cost calls thrown in decides the same as one without."""
    rate, steps = history
    plain, clock = fresh(rate)
    noisy = Limiter(rate, clock=clock)
    for wait, cost in steps:
        clock.advance(wait)
        noisy.hit("k", 0)
        left = noisy.peek("k").remaining
        assert not noisy.allow("k", left + extra)
        assert not noisy.allow("k", BIG)

        assert repr(plain.hit("k", cost)) == repr(noisy.hit("k", cost))


@quick
@given(histories())
def test_peek_predicts_hit(history):
    """TB4: peek returns the next decision of hit and takes nothing."""
    rate, steps = history
    limiter, clock = fresh(rate)
    for wait, cost in steps:
        clock.advance(wait)
        seen = [limiter.peek("k", cost) for _ in range(3)]
        decision = limiter.hit("k", cost)

        assert {bool(peeked) for peeked in seen} == {bool(decision)}
        assert {peeked.retry_after for peeked in seen} == {decision.retry_after}


@pytest.mark.parametrize("cost", [4, 5, 2**31, 2**32, 2**62, BIG])
def test_cost_above_the_burst_never_fits(cost):
    """TB5: refused for ever, at any size, and no arithmetic wraps."""
    limiter, clock = fresh(Rate(1000, "1h", burst=3))
    for _ in range(3):
        decision = limiter.hit("k", cost)
        assert not decision
        assert decision.retry_after == inf
        clock.advance(10**18)
    assert limiter.peek("k").remaining == 3


def test_cost_zero_is_free():
    """TB5: admitted even when nothing is left, and changes no state."""
    limiter, _ = fresh(Rate(1, "1h"))
    assert limiter.allow("k", 0)
    assert limiter.stats().keys == 0
    assert limiter.allow("k")
    assert limiter.hit("k", 0)
    assert not limiter.allow("k")


@quick
@given(rates, st.integers(0, 30), st.integers(0, 30))
def test_costs_add_up(rate, a, b):
    """TB6: at one instant, hit(a) and hit(b) are hit(a + b)."""
    if a + b > rate.burst:
        a, b = rate.burst - rate.burst // 2, rate.burst // 2
    clock = ManualClock(5)
    apart, together = Limiter(rate, clock=clock), Limiter(rate, clock=clock)

    assert apart.allow("k", a)
    second = apart.hit("k", b)
    whole = together.hit("k", a + b)

    assert (second.remaining, second.reset_after) == (whole.remaining, whole.reset_after)


@quick
@given(histories())
def test_remaining_is_the_largest_cost_admitted(history):
    """TB7: remaining fits, one more does not, and it only grows while nothing is taken."""
    rate, steps = history
    limiter, clock = fresh(rate)
    before = rate.burst
    for wait, cost in steps:
        clock.advance(wait)
        left = limiter.peek("k").remaining
        assert before <= left <= rate.burst
        assert limiter.peek("k", left)
        assert not limiter.peek("k", left + 1)
        if limiter.allow("k", cost):
            left -= cost
        before = limiter.peek("k").remaining
        assert before == left


@quick
@given(rates, st.lists(st.tuples(st.integers(0, 10**11), st.integers(0, 5)), max_size=40))
def test_clock_set_back_is_ignored(rate, calls):
    """TB8: readings in any order decide like their running maximum."""
    wild, wild_clock = fresh(rate)
    tame, tame_clock = fresh(rate)
    for (time, cost), top in zip(calls, accumulate((t for t, _ in calls), max), strict=True):
        wild_clock.set(time)
        tame_clock.set(top)

        assert repr(wild.hit("k", cost)) == repr(tame.hit("k", cost))


@quick
@given(histories(), st.integers(0, 10**18))
@example((Rate(3, "1s"), [(0, 3), (1, 1), (333_333_333, 1)]), 2**63)
def test_clock_origin_does_not_matter(history, shift):
    """TB9: the same history later gives the same decisions, to the last nanosecond."""
    rate, steps = history
    early, early_clock = fresh(rate)
    late, late_clock = fresh(rate, shift)
    for wait, cost in steps:
        early_clock.advance(wait)
        late_clock.advance(wait)

        assert repr(early.hit("k", cost)) == repr(late.hit("k", cost))


@quick
@given(histories(), st.integers(2, 1000))
def test_equivalent_rates_decide_alike(history, factor):
    """TB10: 10/s and 600/min with one burst are the same limiter."""
    rate, steps = history
    if rate.limit * factor >= 2**40:
        factor = 2
    clock = ManualClock()
    scaled = Rate(rate.limit * factor, f"{rate.period_ns * factor}ns", burst=rate.burst)
    one, other = Limiter(rate, clock=clock), Limiter(scaled, clock=clock)
    for wait, cost in steps:
        clock.advance(wait)

        a, b = one.hit("k", cost), other.hit("k", cost)
        assert (a.allowed, a.remaining, a.retry_after, a.reset_after) == (
            b.allowed, b.remaining, b.retry_after, b.reset_after,
        )  # fmt: skip


@quick
@given(histories(), st.integers(0, 10**9))
def test_idle_key_equals_a_new_key(history, extra):
    """TB12: after reset_after a key is a new key: the burst, and not one unit more."""
    rate, steps = history
    limiter, clock = fresh(rate)
    for wait, cost in steps:
        clock.advance(wait)
        limiter.hit("k", cost)
    clock.advance(round(limiter.peek("k").reset_after * 1e9) + extra)

    assert limiter.peek("k").remaining == rate.burst
    assert sum(limiter.allow("k") for _ in range(rate.burst + 5)) == rate.burst


@pytest.mark.parametrize("limit", [10**6, 10**7, 34_000_000, 10**9, 4 * 10**12])
@pytest.mark.parametrize("now", [0, 300_000_000 * 10**9, 2**63])
def test_frozen_clock_admits_exactly_the_burst(limit, now):
    """TB9: at any rate and any uptime, 1000 are 1000."""
    limiter, _ = fresh(Rate(limit, "1s", burst=1000), now)
    assert sum(limiter.allow("k") for _ in range(1500)) == 1000


@quick
@given(histories(), st.lists(st.integers(1, 5), max_size=5))
def test_refund_never_gains(history, refunds):
    """TB15: refunded units can be taken again, and never raise a key above a new one."""
    rate, steps = history
    limiter, clock = fresh(rate)
    for wait, cost in steps:
        clock.advance(wait)
        before = limiter.peek("k").remaining
        if limiter.allow("k", cost):
            limiter.refund("k", cost)
            assert limiter.peek("k").remaining == before
        limiter.allow("k", 1)
    for units in refunds:
        before = limiter.peek("k").remaining
        limiter.refund("k", units)
        assert limiter.peek("k").remaining == min(rate.burst, before + units)
    limiter.refund("k", BIG)
    assert limiter.peek("k").remaining == rate.burst


def test_reset_restores_the_burst():
    """After reset the key has its whole burst; others are untouched."""
    limiter, _ = fresh(Rate(2, "1h"))
    assert limiter.allow("a", 2)
    assert limiter.allow("b", 2)
    limiter.reset("a")
    limiter.reset("never seen")

    assert limiter.peek("a").remaining == 2
    assert limiter.peek("b").remaining == 0


@quick
@given(histories(), rates)
def test_reconfiguration_keeps_spent_units(history, new):
    """TB14: tokens owed carry over, cut to the new burst; the key is never reset to full."""
    rate, steps = history
    limiter, clock = fresh(rate)
    for wait, cost in steps:
        clock.advance(wait)
        limiter.hit("k", cost)
    spent = rate.burst - limiter.peek("k").remaining
    limiter.configure(new)

    assert limiter.peek("k").remaining == max(0, new.burst - spent)
    clock.advance(new.burst * new.period_ns // new.limit + new.burst + 1)
    assert limiter.peek("k").remaining == new.burst


@quick
@given(histories(), st.integers(1, 20), st.integers(0, 20))
def test_looser_rate_refuses_no_admitted_call(history, faster, more):
    """TB14: raising rate or burst flips no decision from admitted to refused."""
    rate, steps = history
    limiter, clock = fresh(rate)
    for wait, cost in steps:
        clock.advance(wait)
        limiter.hit("k", cost)
    fits = limiter.peek("k").remaining
    limiter.configure(Rate(rate.limit * faster, f"{rate.period_ns}ns", burst=rate.burst + more))

    assert limiter.peek("k", fits)


def test_rates_of_one_call():
    """hit(rates=...) measures by other rates and cuts the old debt to the most that they admit."""
    limiter, clock = fresh(Rate(1, "1h"))
    premium = [Rate(1000, "1s")]
    assert limiter.hit("k", 1000, rates=premium)
    refused = limiter.hit("k", rates=premium)
    assert refused.limit == 1000
    assert refused.retry_after == 0.001
    clock.advance(1_000_000)
    assert limiter.hit("k", rates=premium)

    assert limiter.allow("other")
    assert limiter.hit("other", rates=premium).retry_after == 0.001
    with pytest.raises(ValueError, match="as many as the limiter has, 1, got 2"):
        limiter.hit("k", rates=[Rate(1, "s", name="a"), Rate(1, "s", name="b")])


def test_system_clock_smoke():
    """Without a manual clock, time flows: a rate of ten million per second is never short for long."""
    limiter = Limiter("10000000/s burst 1")
    assert sum(limiter.allow("k") for _ in range(1000)) >= 1
    frozen = Limiter("1/d")
    assert [frozen.allow("k") for _ in range(3)] == [True, False, False]
