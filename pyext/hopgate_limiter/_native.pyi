"""The compiled module. Import from `hopgate_limiter`; the other names here are for tests and benchmarks."""

from typing import Literal, final

from hopgate_limiter import Decision as Decision
from hopgate_limiter import Limiter as Limiter
from hopgate_limiter import ManualClock as ManualClock
from hopgate_limiter import Rate as Rate
from hopgate_limiter import RedisSync as RedisSync
from hopgate_limiter import Reservation as Reservation
from hopgate_limiter import Stats as Stats
from hopgate_limiter import client_key as client_key

__all__ = [
    "Decision",
    "Limiter",
    "ManualClock",
    "Rate",
    "RedisSync",
    "Reservation",
    "Stats",
    "_Baseline",
    "_CompletionQueue",
    "_Request",
    "__version__",
    "build_profile",
    "client_key",
]

__version__: str

build_profile: Literal["debug", "release"]
"""How the module was compiled. A benchmark should refuse "debug"."""

@final
class _Baseline:
    """The cheapest method of a native class: the cost of `Limiter.allow` without a decision."""

    def __new__(cls) -> _Baseline: ...
    def allow(self, key: str, /) -> bool:
        """Read the text and return True."""

@final
class _CompletionQueue:
    """Decisions of Redis on their way to an event loop."""

    def __new__(cls, fd: int) -> _CompletionQueue:
        """Write one byte to `fd` whenever the queue is no longer empty; -1 for none."""

    def take_all(self) -> list[tuple[int, Decision]]:
        """Remove and return all decisions with their call ids, oldest first."""

    def close(self) -> None:
        """Write nothing from now on."""

@final
class _Request:
    """A request to Redis that the caller sends itself."""

    @property
    def key(self) -> bytes:
        """`KEYS[1]` of the script."""

    @property
    def body(self) -> bytes:
        """`ARGV[1]` of the script."""

    @property
    def short(self) -> bytes | None:
        """The argument of the script for a request that shares its command with others, if it can."""

    @staticmethod
    def script() -> str:
        """The script that runs a request; its reply is a list of integers, or one for each key of several."""
