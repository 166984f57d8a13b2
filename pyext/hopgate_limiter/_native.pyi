"""The compiled module. Import from `hopgate_limiter`; the rest here is for benchmarks."""

from typing import Literal, final

from hopgate_limiter import Decision as Decision
from hopgate_limiter import Limiter as Limiter
from hopgate_limiter import ManualClock as ManualClock
from hopgate_limiter import Rate as Rate
from hopgate_limiter import Reservation as Reservation
from hopgate_limiter import Stats as Stats
from hopgate_limiter import client_key as client_key

__all__ = [
    "Decision",
    "Limiter",
    "ManualClock",
    "Rate",
    "Reservation",
    "Stats",
    "_Baseline",
    "__version__",
    "build_profile",
    "client_key",
]

__version__: str

build_profile: Literal["debug", "release"]
"""How the module was compiled. A benchmark should refuse "debug"."""

@final
class _Baseline:
    """The cheapest method a native class can have: what `Limiter.allow` would cost if deciding were free."""

    def __new__(cls) -> _Baseline: ...
    def allow(self, key: str, /) -> bool:
        """Read the text, answer True."""
