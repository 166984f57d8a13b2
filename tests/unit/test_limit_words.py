"""What the settings of the rate limits say."""

from __future__ import annotations

import pytest
from hopgate_limiter import Rate

from app.adapters.native_limiter import Limit, NativeRateLimiter
from app.ports import Policy


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        ("600 per minute", "gcra"),
        ("600 per minute token_bucket", "gcra"),
        ("600/min TOKEN BUCKET", "gcra"),
        ("10 / 1 s gcra", "gcra"),
        ("600 per minute sliding_window", "sliding_window"),
        ("600/min, 10000/day Sliding-Window ", "sliding_window"),
        ("600/min|10000/day\tsliding window", "sliding_window"),
    ],
)
def test_algorithm_may_follow_the_rates(text, algorithm):
    limit = Limit.parse(text)

    assert limit.algorithm == algorithm
    assert limit.rates[0].limit / limit.rates[0].period_ns == 1e-8


def test_rates_have_the_words_of_the_limiter():
    assert Limit.parse("0.5/s burst 3; 10 per 5 minutes").rates == Rate.parse(
        "0.5/s burst 3; 10 per 5 minutes"
    )


def test_wide_limit_is_four_times_as_much():
    wide = Limit.parse("10 per 7ns burst 3, 1 per 2 months").wide()

    assert [(rate.limit, rate.period_ns, rate.burst) for rate in wide.rates] == [
        (40, 7, 12),
        (4, 60 * 86_400 * 10**9, 4),
    ]
    assert Limit.parse("10/s sliding_window").wide().algorithm == "sliding_window"


def test_rates_of_equal_words_are_told_apart():
    limiter = NativeRateLimiter(dict.fromkeys(Policy, "10/s; 10/s burst 5"))

    assert [limiter.admit(Policy.REDIRECT, "2001:db8::1") for _ in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize("policy", Policy)
def test_window_admits_its_limit_and_no_more(policy):
    limiter = NativeRateLimiter(dict.fromkeys(Policy, "5 per day sliding_window"))

    assert [limiter.admit(policy, "198.51.100.7") for _ in range(7)] == [True] * 5 + [False] * 2
    limiter.refund(policy, "198.51.100.7")
    assert limiter.admit(policy, "198.51.100.7")
    refusal = limiter.refusal(policy, "198.51.100.7")
    # It waits for the window, not for the next token.
    assert refusal.retry_after_s > 80_000
