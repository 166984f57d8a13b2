"""Rates in words: what is read, what is refused, and the text and order of rates."""

import random
from fractions import Fraction

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate
from hypothesis import given
from hypothesis import strategies as st

MINUTE = 60 * 10**9
DAY = 86_400 * 10**9


@pytest.mark.parametrize(
    ("text", "limit", "period_ns", "burst", "name"),
    [
        ("10 per minute", 10, MINUTE, 10, "10/minute"),
        ("10 per 5 minutes", 10, 5 * MINUTE, 10, "10/5minutes"),
        ("10/5 minutes", 10, 5 * MINUTE, 10, "10/5minutes"),
        ("10per5minutes", 10, 5 * MINUTE, 10, "10/5minutes"),
        ("  10  PeR\t5\n MINUTES  BURST  7 ", 10, 5 * MINUTE, 7, "10/5minutes"),
        ("1/week", 1, 7 * DAY, 1, "1/week"),
        ("1 per 2 Weeks", 1, 14 * DAY, 1, "1/2weeks"),
        ("100/w", 100, 7 * DAY, 100, "100/w"),
        ("1/month", 1, 30 * DAY, 1, "1/month"),
        ("1 per 12 months", 1, 360 * DAY, 1, "1/12months"),
        ("1/year", 1, 365 * DAY, 1, "1/year"),
        ("1/2 years", 1, 730 * DAY, 1, "1/2years"),
        ("7/y burst 3", 7, 365 * DAY, 3, "7/y"),
        ("0.5/s", 1, 2 * 10**9, 1, "0.5/s"),
        ("0.50 per second", 1, 2 * 10**9, 1, "0.50/second"),
        ("2.5/min burst 4", 5, 2 * MINUTE, 4, "2.5/min"),
        ("3.0/s", 3, 10**9, 3, "3.0/s"),
        ("10/1.5 s", 10, 1_500_000_000, 10, "10/1.5s"),
        ("5 per 10 milliseconds", 5, 10**7, 5, "5/10milliseconds"),
        ("5/3 microseconds", 5, 3000, 5, "5/3microseconds"),
        ("5/nanosecond", 5, 1, 5, "5/nanosecond"),
        ("5/2 hrs", 5, 120 * MINUTE, 5, "5/2hrs"),
        ("007/s", 7, 10**9, 7, "007/s"),
    ],
)
def test_words(text, limit, period_ns, burst, name):
    """One rate, named after what was written."""
    assert Rate.parse(text) == (Rate(limit, f"{period_ns}ns", burst=burst, name=name),)


@pytest.mark.parametrize(
    "text", ["1/s,2/min;3/h|4 per day", "1/s, 2/min ;3/h | 4 per day", "1/s;2/min,3/h,4/d"]
)
def test_separators(text):
    """Comma, semicolon and bar, mixed."""
    assert [rate.limit for rate in Rate.parse(text)] == [1, 2, 3, 4]
    assert [rate.limit for rate in Limiter(text).rates] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ";",
        "10",
        "per minute",
        "10 per",
        "10 minute",
        "10 a minute",
        "ten per minute",
        "10 per five minutes",
        "10 / per minute",
        "10 per / minute",
        "10 per per minute",
        "10//s",
        "10/s/h",
        "10/s 5/min",
        "10/s and 5/min",
        "10/s,",
        ",10/s",
        "10/s;;5/min",
        "1,000/s",
        "1_000/s",
        "1e3/s",
        "+1/s",
        "-1/s",
        ".5/s",
        "5./s",
        "1.2.3/s",
        "0.0000000001/s",
        "½/s",
        "٣/s",
        "10/s burst",
        "10/s burst -1",
        "10/s burst 2.5",
        "10/s burst 2 3",
        "burst 5 10/s",
        "10/fortnight",
        "10/5",
        "10/s\0",
    ],
)
def test_refused_words(text):
    """The message says what is accepted."""
    with pytest.raises(ValueError, match=r"cannot read the (rate|period)") as refused:
        Rate.parse(text)
    assert "such as" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["0/s", "0.0/s", "1/0 s", "1/s burst 0", "1/0.5 ns"])
def test_refused_numbers(text):
    """They are read, and make no sense."""
    with pytest.raises(ValueError, match=r"must be at least 1|whole number of nanoseconds"):
        Rate.parse(text)


@pytest.mark.parametrize(
    "text",
    ["99999999999999999999/s", "1/400 years", "0.000000001/300 years", "1/99999999999999999999d", "5000/ns"],
)
def test_words_that_do_not_fit(text):
    """As numbers that do not fit."""
    with pytest.raises(OverflowError):
        Rate.parse(text)


@given(
    st.integers(1, 10**6),
    st.integers(0, 2),
    st.sampled_from(["s", "Minutes", "per hour", "PER week", "per 3 months", "per 0.25 Years"]),
    st.randoms(use_true_random=False),
)
def test_fraction_is_exact(digits, places, period, rng: random.Random):
    """The rate is the written number, to the last digit, with any spaces."""
    written = f"{digits // 10**places}.{digits % 10**places:0{places}d}" if places else str(digits)
    period = period if period.startswith(("per", "PER")) else f"/{period}"
    spaced = " ".join([written, period]) if rng.random() < 0.5 or period[0] != "/" else written + period
    [rate] = Rate.parse(spaced)
    [unit] = Rate.parse(f"1{period}")
    assert Fraction(rate.limit, rate.period_ns) == Fraction(digits, 10**places * unit.period_ns)


@given(
    st.integers(1, 2**40),
    st.integers(1, 2**50),
    st.one_of(st.none(), st.integers(1, 1000)),
)
def test_text_of_a_rate_is_read_as_the_rate(limit, period_ns, burst):
    """`str` leaves out the name alone."""
    try:
        rate = Rate(limit, f"{period_ns}ns", burst=burst)
    except OverflowError:
        return
    [read] = Rate.parse(str(rate))
    assert (read.limit, read.period_ns, read.burst) == (rate.limit, rate.period_ns, rate.burst)


def test_text_of_a_rate_is_short():
    """The largest unit that fits, and the burst if it is not the limit."""
    rates = Rate.parse("10 per 60 seconds; 0.5/s; 1/week burst 9; 1500/90 s")
    assert [str(rate) for rate in rates] == ["10/min", "1/2s", "1/7d burst 9", "1500/90s"]
    assert f"{rates[0]}" == "10/min"
    assert repr(Limiter(*rates)) == "<Limiter 10/min; 1/2s; 1/7d burst 9; 1500/90s>"


def test_rates_have_an_order():
    """By period, then limit, burst and name; equal rates are neither less nor more."""
    rates = [
        Rate(9, "s"),
        Rate(1, "min", burst=1),
        Rate(1, "min", burst=2, name="a"),
        Rate(1, "min", burst=2, name="b"),
        Rate(2, "min", burst=1),
        Rate(1, "h"),
    ]
    shuffled = rates[::-1]
    assert sorted(shuffled) == rates
    assert Rate(1, "min") <= Rate(1, "60s")
    assert not Rate(1, "min") < Rate(1, "60s")
    assert max(rates) == rates[-1]
    with pytest.raises(TypeError):
        _ = Rate(1, "s") < 5  # type: ignore[operator]


def test_a_fraction_limits_as_it_says():
    """Half a unit a second is one every two."""
    clock = ManualClock()
    limiter = Limiter("0.5/s", clock=clock)
    admitted = 0
    for _ in range(100):
        admitted += limiter.allow("k")
        clock.advance(10**8)
    assert admitted == 5
