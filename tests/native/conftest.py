"""Shared by the tests of the limiter: the exact model of a token bucket."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hopgate_limiter import Rate

TICK = Fraction(1, 2**32)


@dataclass
class Bucket:
    """A token bucket in exact rationals: the definition, not the implementation."""

    rate: Rate
    full_at: Fraction = Fraction(0)
    now: int = 0
    interval: Fraction = field(init=False)

    def __post_init__(self) -> None:
        exact = Fraction(self.rate.period_ns, self.rate.limit)
        self.interval = -(-exact // TICK) * TICK

    def tokens(self) -> Fraction:
        return self.rate.burst - max(Fraction(0), self.full_at - self.now) / self.interval

    def wait(self, cost: int) -> Fraction:
        return max(Fraction(0), (cost - self.tokens()) * self.interval)

    def hit(self, cost: int) -> bool:
        if cost > self.tokens():
            return False
        self.full_at = max(self.full_at, Fraction(self.now)) + cost * self.interval
        return True


@pytest.fixture(scope="session")
def bucket() -> Callable[[Rate], Bucket]:
    """Make a model of a token bucket."""
    return Bucket


@pytest.fixture(scope="session")
def as_ns() -> Callable[[float], int]:
    """Turn a delay of a decision into nanoseconds: exact below 104 days."""
    return lambda seconds: round(seconds * 1e9)
