"""A rate limiter: exact and fast, in one process or shared through Redis. The manual is `__init__.pyi`."""

from hopgate_limiter._methods import Slot
from hopgate_limiter._methods import install as _install
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
from hopgate_limiter._types import Clock, Key, Rates, Seconds
from hopgate_limiter._waiting import CostTooLargeError, RateLimitExceeded

_install()

__all__ = [
    "Clock",
    "CostTooLargeError",
    "Decision",
    "Key",
    "Limiter",
    "ManualClock",
    "Rate",
    "RateLimitExceeded",
    "Rates",
    "RedisSync",
    "Reservation",
    "Seconds",
    "Slot",
    "Stats",
    "__version__",
    "client_key",
]


def __dir__() -> list[str]:
    """Name what is public: a submodule that was imported is none of it."""
    return sorted(__all__)
