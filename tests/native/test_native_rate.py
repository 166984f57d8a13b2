"""Rates, manual clocks, and the arguments they refuse."""

from datetime import timedelta

import pytest
from hopgate_limiter import ManualClock, Rate


@pytest.mark.parametrize(
    ("per", "period_ns"),
    [
        ("s", 10**9),
        ("1s", 10**9),
        ("10 sec", 10**10),
        ("500ms", 5 * 10**8),
        ("3us", 3000),
        ("7ns", 7),
        ("min", 60 * 10**9),
        ("m", 60 * 10**9),
        ("2 Hours", 7200 * 10**9),
        ("day", 86_400 * 10**9),
        (1, 10**9),
        (0.1, 10**8),
        (1e-9, 1),
        (timedelta(days=1, microseconds=1), 86_400 * 10**9 + 1000),
    ],
)
def test_periods(per, period_ns):
    """Text, seconds or timedelta, exact to the nanosecond."""
    assert Rate(5, per).period_ns == period_ns


def test_rates_are_values():
    """Equal numbers and names are equal rates; burst defaults to the limit."""
    rate = Rate(100, "1s", burst=200, name="api")
    assert (rate.limit, rate.period_ns, rate.burst, rate.name) == (100, 10**9, 200, "api")
    assert Rate(5, "s").burst == 5
    assert Rate(5, "s").name == "default"
    assert rate == Rate(100, timedelta(seconds=1), burst=200, name="api")
    assert len({rate, Rate(100, 1.0, burst=200, name="api"), Rate(100, "1s", name="api")}) == 2
    assert eval(repr(rate)) == rate


def test_parse():
    """Clauses become rates named after themselves."""
    first, second = Rate.parse("10/s burst 20; 1000/2h")
    assert first == Rate(10, "s", burst=20, name="10/s")
    assert second == Rate(1000, "2h", name="1000/2h")


@pytest.mark.parametrize(
    "spec", ["", "10", "ten/s", "10/s;", "10/s burst", "1.5.0/s", "-1/s", "10/fortnight"]
)
def test_unreadable_specs(spec):
    """An unreadable clause is a ValueError."""
    with pytest.raises(ValueError, match="cannot read the"):
        Rate.parse(spec)


@pytest.mark.parametrize(
    ("limit", "per", "options", "error", "message"),
    [
        (0, "s", {}, ValueError, "limit must be at least 1, got 0"),
        (-5, "s", {}, ValueError, "limit must be at least 1, got -5"),
        (2**63, "d", {}, OverflowError, r"limit must be below 2\*\*63, got 9223372036854775808"),
        (2**200, "d", {}, OverflowError, "limit must be below"),
        (5, "s", {"burst": 0}, ValueError, "burst must be at least 1, got 0"),
        (5, "s", {"burst": 2**64}, OverflowError, "burst must be below"),
        (1, "d", {"burst": 10**6}, OverflowError, "burst must be refilled in 2"),
        (10**13, "s", {}, OverflowError, "limit must be at most 4096 per ns"),
        (5, 0, {}, ValueError, "per must be at least 1 ns, got 0"),
        (5, -1.0, {}, ValueError, "per must be at least 1 ns"),
        (5, float("nan"), {}, ValueError, "per must be at least 1 ns"),
        (5, float("inf"), {}, OverflowError, "per must be below"),
        (5, timedelta(0), {}, ValueError, "per must be at least 1 ns"),
        (5, timedelta.max, {}, OverflowError, "per must be below"),
        (5, "0s", {}, ValueError, "period_ns must be at least 1"),
        (5, "1.5ns", {}, ValueError, "must be a whole number of nanoseconds"),
        (5, "1.s", {}, ValueError, "cannot read the period"),
        (5, "s", {"name": ""}, ValueError, "name must be 1 to 64"),
        (5, "s", {"name": 'a"b'}, ValueError, "name must be 1 to 64"),
        (5, "s", {"name": "é"}, ValueError, "name must be 1 to 64"),
        (5, "s", {"name": "x" * 65}, ValueError, "name must be 1 to 64"),
        (5, None, {}, TypeError, "per must be str, seconds or timedelta, not NoneType"),
        (5.5, "s", {}, TypeError, "float"),
    ],
)
def test_refused_rates(limit, per, options, error, message):
    """Numbers out of range are refused when the rate is made, never wrapped later."""
    with pytest.raises(error, match=message):
        Rate(limit, per, **options)


def test_manual_clock():
    """Moves by advance and set, and stops at the end of its range."""
    clock = ManualClock(5)
    clock.advance(10)
    assert clock.now_ns == 15
    clock.set(3)
    assert repr(clock) == "ManualClock(3)"
    clock.advance(2**64 - 1)
    assert clock.now_ns == 2**64 - 1
    for bad in (-1, 2**64):
        with pytest.raises(ValueError, match=r"ns must be 0 to 2\*\*64 - 1"):
            clock.set(bad)
        with pytest.raises(ValueError, match="ns must be 0"):
            ManualClock(bad)
