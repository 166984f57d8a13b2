"""Four processes on one Redis keep one limit while Redis is killed and comes back empty."""

import random

import pytest

from bench.limiter.four_processes import BURST, POLICIES, describe, prove
from bench.limiter.windows import worst_window


def plain(admissions, per_second):
    """Try every window that starts before a call and ends after one."""
    worst = 0.0
    for start, _ in admissions:
        for _, end in admissions:
            inside = sum(before >= start and after <= end for before, after in admissions)
            if inside:
                worst = max(worst, inside - per_second / 1e9 * (end - start))
    return worst


@pytest.mark.parametrize("seed", range(50))
def test_worst_window_equals_brute_force(seed):
    """The fast search equals trying all windows, also where calls overlap."""
    numbers = random.Random(seed)
    starts = [numbers.randrange(10**9) for _ in range(numbers.randint(0, 14))]
    admissions = [(start, start + numbers.randrange(3 * 10**8)) for start in starts]
    worst = worst_window(admissions, 5)
    assert worst.units == pytest.approx(plain(admissions, 5))
    if worst.units:
        window = range(worst.start_ns, worst.end_ns + 1)
        inside = sum(before in window and after in window for before, after in admissions)
        assert inside - 5e-9 * (worst.end_ns - worst.start_ns) == pytest.approx(worst.units)


@pytest.mark.services
@pytest.mark.parametrize("policy", POLICIES)
def test_no_window_exceeds_the_limit(policy):
    """Demand is ten times the limit; the worst second is the one in which all processes reconnect."""
    proof = prove(policy, 5.0, [(2.0, 1.0)])
    report = "\n".join(describe(proof))
    assert proof.worst().units <= BURST, report
    assert proof.sources()["lease"] > 0, report
