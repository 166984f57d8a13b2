"""
Speed gates: ratios of two measurements in alternation within one test, so the machine's load cancels out.

    pytest bench/limiter --benchmark-enable

A bar fails when the ratio is about twice as bad as when the bar was set. The bars of the
design are tighter; `compare.py` measures against those and more rivals.
"""

import timeit
from collections.abc import Callable

import pytest
from hopgate_limiter import Limiter, client_key
from hopgate_limiter._native import _Baseline, build_profile

from bench.limiter.contenders import UNLIMITED, limits_fixed, limits_hit_and_stats

Call = Callable[[str], object]
KEY = "198.51.100.7"
EMPTY: Call = _Baseline().allow


@pytest.fixture(autouse=True)
def only_when_enabled(request):
    """A gate needs --benchmark-enable and an optimised build."""
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("run with --benchmark-enable")
    assert build_profile == "release", "maturin develop --release"


def cost_ns(call: Call, number: int) -> float:
    return timeit.timeit("call(key)", globals={"call": call, "key": KEY}, number=number) / number * 1e9


def ratio(call: Call, other: Call, number: int = 20_000, rounds: int = 25) -> float:
    """Return the time of `call` ÷ the time of `other`: the best of alternating rounds."""
    best = [float("inf")] * 2
    for _ in range(rounds):
        for side, subject in enumerate((call, other)):
            best[side] = min(best[side], cost_ns(subject, number))
    return best[0] / best[1]


def gate(benchmark, call: Call, measured: float) -> None:
    """Put the ratio and the plain time into the report."""
    benchmark.extra_info["ratio"] = round(measured, 2)
    benchmark.pedantic(call, args=(KEY,), rounds=200, iterations=500)


@pytest.mark.parametrize(("algorithm", "bar"), [("gcra", 4), ("sliding_window", 5), ("sliding_log", 5)])
def test_allow_against_an_empty_native_method(benchmark, algorithm, bar):
    """A decision costs little more than the call itself: 2.0 to 2.5 times an empty method for a bucket."""
    allow = Limiter("1000000000/h", algorithm=algorithm).allow
    measured = ratio(allow, EMPTY)
    gate(benchmark, allow, measured)
    assert measured <= bar


def test_refusal_is_as_fast_as_admission(benchmark):
    """A flood of refused calls costs no more than the same number of admitted ones."""
    refuse = Limiter("1/h").allow
    refuse(KEY)
    measured = ratio(refuse, Limiter("1000000000/h").allow)
    gate(benchmark, refuse, measured)
    assert measured <= 1.5


def test_second_rate_is_cheap(benchmark):
    """Two rates decided together cost much less than two limiters."""
    both = Limiter("1000000000/h; 2000000000/d").allow
    measured = ratio(both, Limiter("1000000000/h").allow)
    gate(benchmark, both, measured)
    assert measured <= 1.6


def test_hit_against_an_empty_native_method(benchmark):
    """A full decision costs 3.2 to 4 times an empty method."""
    hit = Limiter("1000000000/h").hit
    measured = ratio(hit, EMPTY)
    gate(benchmark, hit, measured)
    assert measured <= 7


def test_client_key_against_an_empty_native_method(benchmark):
    """Checking an IPv4 address costs 1.7 to 2 times an empty method."""
    measured = ratio(client_key, EMPTY)
    gate(benchmark, client_key, measured)
    assert measured <= 3.5


def test_allow_against_limits(benchmark):
    """The fastest strategy of limits took 55 to 80 times as long; the bar of the design is 15."""
    allow = Limiter("1000000000/h").allow
    measured = ratio(limits_fixed(UNLIMITED), allow, number=2_000)
    gate(benchmark, allow, measured)
    assert measured >= 25


def test_hit_against_limits(benchmark):
    """One `Decision` against `hit` and `get_window_stats`, which return as much: 80 times as long or more."""
    hit = Limiter("1000000000/h").hit
    measured = ratio(limits_hit_and_stats(UNLIMITED), hit, number=2_000)
    gate(benchmark, hit, measured)
    assert measured >= 30
