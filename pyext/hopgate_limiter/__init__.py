"""A rate limiter: exact, quick, alone or shared through Redis. The manual is `__init__.pyi`."""

from typing import TypeAlias

from hopgate_limiter._native import (
    Decision,
    Limiter,
    ManualClock,
    Rate,
    RedisSync,
    Reservation,
    Stats,
    __version__,
    client_key,
)
from hopgate_limiter._waiting import RateLimitExceeded

Clock: TypeAlias = ManualClock
Key: TypeAlias = str | bytes | int
Seconds: TypeAlias = float

__all__ = [
    "Clock",
    "Decision",
    "Key",
    "Limiter",
    "ManualClock",
    "Rate",
    "RateLimitExceeded",
    "RedisSync",
    "Reservation",
    "Seconds",
    "Stats",
    "__version__",
    "client_key",
]
