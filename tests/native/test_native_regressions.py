"""Defects of other rate limiters, one test each. The docstring names the defect and the limiter."""

import resource
from math import inf

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate

SECOND = 10**9
HOUR = 3600 * SECOND
BIG = 2**63 - 1
algorithms = pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])


def admitted(limiter: Limiter, tries: int, key: str = "k") -> int:
    return sum(limiter.allow(key) for _ in range(tries))


@pytest.mark.parametrize("idle_s", [0.9, 8.9, 9.9, 10, 11, 1e6])
def test_extra_cells_after_idling(idle_s):
    """Class 1: after a pause a burst of 10 admits 17 (throttlecrab), 11 (governor), anything (uber)."""
    clock = ManualClock()
    limiter = Limiter(Rate(1, "1s", burst=10), clock=clock)
    assert admitted(limiter, 20) == 10
    clock.advance(round(idle_s * SECOND))
    assert admitted(limiter, 20) == min(10, int(idle_s))


@algorithms
def test_twice_the_limit_in_the_first_period(algorithm):
    """Class 2: a bucket admits burst + rate in its first period, which surprises users; windows do not."""
    clock = ManualClock(5 * HOUR)
    limiter = Limiter("100/min", algorithm=algorithm, clock=clock)
    total = 0
    for _ in range(600):
        total += admitted(limiter, 3)
        clock.advance(SECOND // 10)
    assert total == (199 if algorithm == "gcra" else 100)


@pytest.mark.parametrize(
    ("rate", "poll_ns", "polls", "ideal"),
    [
        (Rate(54, "1min", burst=600), SECOND, 1200, 1200),
        (Rate(7, "1s"), SECOND // 10, 600, 7 + 419),
        (Rate(3, "1s"), SECOND // 1000, 60_000, 3 + 179),
    ],
)
def test_fractions_are_not_lost(rate, poll_ns, polls, ideal):
    """Class 3: whole tokens per poll starve: 900 of 1200 admitted (throttled-py), 308 of 426 (gubernator)."""
    clock = ManualClock()
    limiter = Limiter(rate, clock=clock)
    total = 0
    for _ in range(polls):
        total += limiter.allow("k")
        clock.advance(poll_ns)
    assert total == ideal


@pytest.mark.parametrize("limit", [10**6, 10**7, 34_000_000, 10**8, 10**9])
def test_float_time_quantum(limit):
    """Class 4: at 9.5 years of uptime a float TAT admits 839 of 1000, or any number (redis_rate)."""
    limiter = Limiter(Rate(limit, "1s", burst=1000), clock=ManualClock(300_000_000 * SECOND))
    assert admitted(limiter, 1500) == 1000


@pytest.mark.parametrize("limit", [1_000_003, 300_000_000, 600_000_000, 3_000_000_000])
def test_truncated_interval(limit):
    """Class 5: `1 s / n` in whole nanoseconds runs 11 % to 67 % fast, or divides by zero (governor, Go)."""
    clock = ManualClock()
    limiter = Limiter(Rate(limit, "1s"), clock=clock)
    assert limiter.allow("k", limit)
    clock.advance(SECOND // 2)
    left = limiter.peek("k").remaining
    assert limit / 2 - limit / 10**6 - 1 <= left <= limit / 2


@algorithms
@pytest.mark.parametrize("cost", [5_124_097, 2**32 + 1, 2**62, BIG])
def test_cost_overflow(algorithm, cost):
    """Class 6: interval times cost wraps and a huge cost is admitted (governor check_n, mennanov, envoy)."""
    limiter = Limiter(Rate(1000, "1h"), algorithm=algorithm, clock=ManualClock(2**63))
    assert not limiter.allow("k", cost)
    assert limiter.hit("k", cost).retry_after == inf
    assert admitted(limiter, 1500) == 1000
    assert not limiter.allow("k", cost)


@algorithms
def test_refusals_do_not_consume(algorithm):
    """Class 7: refused calls deepen the debt, so a busy client never gets back in (upstash)."""
    clock = ManualClock(HOUR)
    limiter = Limiter("10/s", algorithm=algorithm, clock=clock)
    assert limiter.allow("k", 8)
    for _ in range(1000):
        assert not limiter.allow("k", 5)
    assert limiter.allow("k", 2)
    clock.advance(2 * SECOND)
    assert limiter.allow("k", 10)


@pytest.mark.parametrize(("limit", "burst"), [(1000, 100), (100_000, 10), (1, 1)])
def test_state_lives_until_refilled(limit, burst):
    """Class 8: a lifetime rounded down to 0 s deletes live keys, so no limit holds (throttled-py)."""
    clock = ManualClock()
    limiter = Limiter(Rate(limit, "1s", burst=burst), max_keys=4096, clock=clock)
    assert limiter.allow("k", burst)
    clock.advance(burst * SECOND // limit - 1)
    for other in range(4000):
        limiter.allow(other)
    assert limiter.peek("k").remaining == burst - 1


def test_idle_keys_do_not_accumulate():
    """Classes 9 and 10: keys never expire and memory grows until it ends (governor, upstash, Pyrate)."""
    clock = ManualClock()
    limiter = Limiter("100/s", max_keys=10_000, clock=clock)
    for key in range(50_000):
        limiter.allow(key)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for key in range(50_000, 500_000):
        limiter.allow(key)
        clock.advance(1000)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb

    assert limiter.stats().keys <= 10_000
    assert grown_kb < 4096


@pytest.mark.parametrize("on_full", ["deny", "shared_bucket", "evict_idle"])
def test_eviction_of_live_keys(on_full):
    """Class 11: 1024 other keys push a blocked one out, and it starts anew (throttled-py, gubernator)."""
    limiter = Limiter("1/h", max_keys=1024, on_full=on_full, clock=ManualClock())
    assert limiter.allow("blocked")
    for key in range(5000):
        limiter.allow(key)
    assert not limiter.allow("blocked")
    assert limiter.stats().evicted_live == 0


@algorithms
def test_clock_set_back(algorithm):
    """Class 12: an older reading refills the bucket or counts as elapsed (spring-cloud-gateway, nginx)."""
    clock = ManualClock(10 * HOUR)
    limiter = Limiter("2/h", algorithm=algorithm, clock=clock)
    assert admitted(limiter, 5) == 2
    for back in (1, SECOND, HOUR, 9 * HOUR):
        clock.set(10 * HOUR - back)
        assert not limiter.allow("k")
    clock.set(10 * HOUR + 1)
    assert not limiter.allow("k")


@pytest.mark.parametrize(("wait", "fits"), [(SECOND - 1, 0), (SECOND, 2), (SECOND + 1, 2)])
def test_window_boundary(wait, fits):
    """Class 13: closed intervals count a hit twice at the edge, or spin until it is past (Pyrate)."""
    clock = ManualClock(17)
    limiter = Limiter("2/s", algorithm="sliding_log", clock=clock)
    assert admitted(limiter, 5) == 2
    clock.advance(wait)
    assert admitted(limiter, 5) == fits


@algorithms
def test_no_double_quota_around_an_aligned_boundary(algorithm):
    """Class 13: windows aligned to the clock admit twice the limit across a boundary (plausible)."""
    clock = ManualClock(10 * SECOND - 1)
    limiter = Limiter("10/10s burst 10", algorithm=algorithm, clock=clock)
    assert admitted(limiter, 20) == 10
    clock.advance(1)
    assert admitted(limiter, 20) == 0


def test_retry_after_rounds_up():
    """Class 14: a wait below a second becomes Retry-After: 0, so all return at once (tower-governor)."""
    clock = ManualClock()
    limiter = Limiter("1000/s burst 1", clock=clock)
    assert limiter.allow("k")
    refused = limiter.hit("k")
    assert refused.retry_after == 0.001
    assert refused.headers()["Retry-After"] == "1"
    clock.advance(1_000_000)
    assert limiter.hit("k").retry_after == 0.0


@algorithms
def test_remaining_stays_in_range(algorithm):
    """Class 15: remaining below zero or above the limit; negative costs add tokens (bucket4j)."""
    clock = ManualClock(HOUR)
    limiter = Limiter("5/s", algorithm=algorithm, clock=clock)
    for cost in (0, 6, 3, 3, 2, 1):
        assert 0 <= limiter.hit("k", cost).remaining <= 5
    with pytest.raises(ValueError, match="cost must be at least 0, got -3"):
        limiter.allow("k", -3)
    with pytest.raises(ValueError, match="cost must be at least 0, got -3"):
        limiter.refund("k", -3)
    limiter.refund("k", BIG)
    assert limiter.peek("k").remaining == 5


def test_reconfiguration_resets_nothing():
    """Class 22: a new duration resets keys, recurses for ever, or lets the rate drift (redisson)."""
    clock = ManualClock()
    limiter = Limiter("10/h", clock=clock)
    assert limiter.allow("k", 10)
    for spec in ("10/s", "10/d", "10/min", "10/h") * 50:
        limiter.configure(spec)
        assert limiter.peek("k").remaining == 0
    clock.advance(HOUR // 2)
    assert limiter.peek("k").remaining == 5
