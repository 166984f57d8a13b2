"""Sliding windows against a plain list of admitted hits."""

from math import inf

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budgets import examples

# A busy machine is no reason to fail.
quick = settings(max_examples=examples(60))

BIG = 2**63 - 1
both = pytest.mark.parametrize("algorithm", ["sliding_log", "sliding_window"])


@st.composite
def histories(draw: st.DrawFn) -> tuple[Rate, int, list[tuple[int, int]]]:
    """A rate, a precision, and steps (ns to wait, cost) around the edges of windows and buckets."""
    window = draw(st.sampled_from([1, 2, 16, 17, 1000, 999_999_937]))
    limit = draw(st.integers(1, 12))
    precision = draw(st.sampled_from([1, 2, 7, 16]))
    width = -(-window // precision)
    around = st.builds(
        lambda n, unit, off: max(0, n * unit + off),
        st.integers(0, 2), st.sampled_from([window, width]), st.integers(-1, 1),
    )  # fmt: skip
    waits = st.just(0) | around | st.integers(0, window)
    steps = draw(st.lists(st.tuples(waits, st.integers(0, limit + 1)), min_size=1, max_size=40))
    return Rate(limit, f"{window}ns"), precision, steps


class Log:
    """All admitted hits."""

    def __init__(self, limit: int, window: int) -> None:
        self.limit, self.window = limit, window
        self.hits: list[tuple[int, int]] = []

    def used(self, now: int) -> int:
        return sum(cost for at, cost in self.hits if now - self.window < at <= now)

    def fits(self, now: int, cost: int) -> bool:
        return self.used(now) + cost <= self.limit

    def wait(self, now: int, cost: int) -> float:
        edges = sorted({0} | {at + self.window - now for at, _ in self.hits if at + self.window > now})
        return next((edge for edge in edges if self.fits(now + edge, cost)), inf)


@quick
@given(histories())
def test_log_agrees_with_a_list(as_ns, history):
    """SL1–SL6: admitted if and only if it fits in (t − W, t]; every field is exact; refusals are free."""
    rate, _, steps = history
    clock = ManualClock(7)
    limiter = Limiter(rate, algorithm="sliding_log", clock=clock)
    model = Log(rate.limit, rate.period_ns)
    for wait, cost in steps:
        clock.advance(wait)
        now = clock.now_ns
        expected = model.fits(now, cost)
        delay = model.wait(now, cost)
        peeked = limiter.peek("k", cost)
        if expected and cost:
            model.hits.append((now, cost))

        decision = limiter.hit("k", cost)

        assert decision.allowed is peeked.allowed is expected
        assert decision.remaining == rate.limit - model.used(now)
        assert peeked.retry_after == decision.retry_after
        assert as_ns(decision.retry_after) == delay if delay < inf else decision.retry_after == inf
        last = max((at for at, _ in model.hits), default=-rate.period_ns)
        assert as_ns(decision.reset_after) == max(0, last + rate.period_ns - now)


@quick
@given(histories())
def test_buckets_never_exceed_the_limit(history):
    """BW1: at most `limit` in every half-open window of the period, wherever it starts."""
    rate, precision, steps = history
    clock = ManualClock()
    limiter = Limiter(rate, algorithm="sliding_window", precision=precision, clock=clock)
    admitted = Log(rate.limit, rate.period_ns)
    for wait, cost in steps:
        clock.advance(wait)
        if limiter.allow("k", cost):
            admitted.hits.append((clock.now_ns, cost))

    for at, _ in admitted.hits:
        assert admitted.used(at) <= rate.limit
        assert admitted.used(at + rate.period_ns - 1) <= rate.limit


@quick
@given(histories())
def test_buckets_refuse_at_most_one_bucket_too_long(history):
    """BW2: every call that the exact log over W + q admits on the same history is admitted."""
    rate, precision, steps = history
    clock = ManualClock()
    limiter = Limiter(rate, algorithm="sliding_window", precision=precision, clock=clock)
    longer = Log(rate.limit, rate.period_ns + -(-rate.period_ns // precision))
    for wait, cost in steps:
        clock.advance(wait)
        allowed = limiter.allow("k", cost)
        assert allowed or not longer.fits(clock.now_ns, cost)
        if allowed:
            longer.hits.append((clock.now_ns, cost))


@both
@quick
@given(history=histories())
def test_window_fields_are_exact(algorithm, as_ns, history):
    """SL4, TB7: retry_after and reset_after are enough and minimal; remaining fits, one more does not."""
    rate, precision, steps = history
    clock = ManualClock()
    limiter = Limiter(rate, algorithm=algorithm, precision=precision, clock=clock)
    for wait, cost in steps:
        clock.advance(wait)
        decision = limiter.hit("k", cost)
        assert 0 <= decision.remaining <= rate.limit
        assert limiter.peek("k", decision.remaining)
        assert not limiter.peek("k", decision.remaining + 1)
        if not decision and cost <= rate.limit:
            clock.advance(as_ns(decision.retry_after) - 1)
            assert not limiter.peek("k", cost)
            clock.advance(1)
            assert limiter.peek("k", cost)

    reset = as_ns(limiter.peek("k").reset_after)
    if reset:
        clock.advance(reset - 1)
        assert limiter.peek("k").remaining < rate.limit
        clock.advance(1)
    assert limiter.peek("k").remaining == rate.limit


@both
@quick
@given(history=histories())
def test_windows_forget_refused_calls(algorithm, history):
    """SL5: a run with refused calls thrown in decides the same as one without."""
    rate, precision, steps = history
    clock = ManualClock()
    plain = Limiter(rate, algorithm=algorithm, precision=precision, clock=clock)
    noisy = Limiter(rate, algorithm=algorithm, precision=precision, clock=clock)
    for wait, cost in steps:
        clock.advance(wait)
        assert not noisy.allow("k", noisy.peek("k").remaining + 1)
        assert not noisy.allow("k", BIG)

        assert repr(plain.hit("k", cost)) == repr(noisy.hit("k", cost))


@both
@quick
@given(history=histories(), times=st.lists(st.integers(0, 10**10), min_size=1, max_size=40))
def test_windows_ignore_clock_set_back(algorithm, history, times):
    """SL7: readings in any order decide like their running maximum."""
    rate, precision, _ = history
    wild_clock, tame_clock = ManualClock(), ManualClock()
    wild = Limiter(rate, algorithm=algorithm, precision=precision, clock=wild_clock)
    tame = Limiter(rate, algorithm=algorithm, precision=precision, clock=tame_clock)
    for index, time in enumerate(times):
        wild_clock.set(time)
        tame_clock.set(max(times[: index + 1]))

        assert repr(wild.hit("k")) == repr(tame.hit("k"))


@pytest.mark.parametrize(("wait", "fits"), [(999_999_999, False), (10**9, True), (10**9 + 1, True)])
def test_window_is_half_open(wait, fits):
    """SL3: a hit exactly one window old no longer counts; one nanosecond younger it does."""
    clock = ManualClock(123)
    limiter = Limiter("1/s", algorithm="sliding_log", clock=clock)
    assert limiter.allow("k")
    clock.advance(wait)
    assert limiter.allow("k") is fits


@both
@quick
@given(history=histories(), units=st.integers(0, 15))
def test_window_refunds_never_gain(algorithm, history, units):
    """TB15: a refund makes room for the refunded units, at most up to a new key."""
    rate, precision, steps = history
    clock = ManualClock()
    limiter = Limiter(rate, algorithm=algorithm, precision=precision, clock=clock)
    for wait, cost in steps:
        clock.advance(wait)
        limiter.hit("k", cost)
    left = limiter.peek("k").remaining
    limiter.refund("k", units)

    assert limiter.peek("k").remaining == min(rate.limit, left + units)


@both
def test_window_reconfiguration_keeps_hits(algorithm):
    """TB14: hits stay in a new window until they leave it."""
    clock = ManualClock(10**12)
    limiter = Limiter("10/10s", algorithm=algorithm, precision=10, clock=clock)
    for _ in range(5):
        assert limiter.allow("k")
        clock.advance(10**9)
    limiter.configure("12/10s")
    assert limiter.peek("k").remaining == 7
    limiter.configure("3/10s")
    assert limiter.peek("k").remaining == 0
    limiter.configure("10/2s")
    assert 8 <= limiter.peek("k").remaining <= 9
    limiter.configure("10/30s")
    assert limiter.peek("k").remaining <= 9


def test_log_merges_hits_of_one_instant():
    """SL8: a million hits in the same nanosecond are one entry, and expire together."""
    clock = ManualClock()
    limiter = Limiter(Rate(10**9, "1s"), algorithm="sliding_log", clock=clock)
    for _ in range(1000):
        assert limiter.allow("k", 10**6)
    refused = limiter.hit("k")
    assert refused.retry_after == 1.0
    clock.advance(10**9)
    assert limiter.peek("k").remaining == 10**9


@both
def test_windows_take_no_burst(algorithm):
    """A burst other than the limit would be ignored, so it is an error."""
    with pytest.raises(ValueError, match="'10/s' has limit 10 and burst 20"):
        Limiter("10/s burst 20", algorithm=algorithm)


@pytest.mark.parametrize("precision", [-1, 0, 1025])
def test_precision_is_bounded(precision):
    """1 to 1024 buckets."""
    with pytest.raises(ValueError, match=f"precision must be 1 to 1024 buckets, got {precision}"):
        Limiter("10/s", algorithm="sliding_window", precision=precision)


def test_window_period_cannot_change_for_one_call():
    """Buckets of one width cannot be read as another; limits can change."""
    limiter = Limiter("10/s", algorithm="sliding_window")
    assert limiter.hit("k", 15, rates=[Rate(20, "1s")])
    assert not limiter.allow("k")
    with pytest.raises(ValueError, match="keep the limiter's periods"):
        limiter.hit("k", rates=[Rate(10, "2s")])


@both
def test_huge_windows_do_not_wrap(algorithm):
    """Limits and times at the end of the range neither wrap nor panic."""
    clock = ManualClock(2**64 - 1)
    limiter = Limiter(Rate(BIG, "9223372036854775807ns"), algorithm=algorithm, clock=clock)
    assert limiter.allow("k", BIG)
    refused = limiter.hit("k")
    assert not refused
    assert refused.remaining == 0
    limiter.refund("k", BIG)
    assert limiter.allow("k", BIG)


def test_unknown_algorithm_is_refused():
    """Only the implemented algorithms are accepted."""
    with pytest.raises(ValueError, match="algorithm must be one of 'gcra', 'sliding_log', 'sliding_window'"):
        Limiter("10/s", algorithm="sliding_counter")  # type: ignore[arg-type]
