"""An in-process rate limiter: exact, bounded in memory, and quick. The manual is `__init__.pyi`."""

from typing import TypeAlias

from hopgate_limiter._native import (
    Decision,
    Limiter,
    ManualClock,
    Rate,
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
    "Reservation",
    "Seconds",
    "Stats",
    "__version__",
    "client_key",
]
