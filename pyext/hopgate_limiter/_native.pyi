"""The compiled module. Import from `hopgate_limiter`; the rest here is for benchmarks."""

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
    "_Mailbox",
    "_Parcel",
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

@final
class _Mailbox:
    """Decisions of Redis on their way to an event loop."""

    def __new__(cls, fd: int) -> _Mailbox:
        """Write one byte to `fd` whenever the mailbox is no longer empty; -1 for none."""

    def take_all(self) -> list[tuple[int, Decision]]:
        """Everything that has come in, with its ticket, oldest first."""

    def close(self) -> None:
        """Write nothing from now on."""

@final
class _Parcel:
    """A request to Redis, to be carried by hand."""

    @property
    def key(self) -> bytes:
        """`KEYS[1]` of the script."""

    @property
    def body(self) -> bytes:
        """`ARGV[1]` of the script."""

    @staticmethod
    def script() -> str:
        """The script that every parcel is an argument of; its reply is a list of integers."""
