"""The types of arguments; the manual is `__init__.pyi`."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from hopgate_limiter._native import Rate

Key: TypeAlias = str | bytes | int | UUID | IPv4Address | IPv6Address | tuple["Key", ...]
Rates: TypeAlias = str | Rate | Iterable[str | Rate]
Seconds: TypeAlias = float


@runtime_checkable
class Clock(Protocol):
    """
    A time source of your own, for `Limiter(clock=...)`; `ManualClock` is one, too.

        class WallClock:
            @property
            def now_ns(self) -> int:
                return time.time_ns()

    It is read at each call, by the thread that makes it and with no lock held. A limiter ignores a clock that
    goes back, and one that raises: the error goes to `sys.unraisablehook`, and time stands still. Callers
    that wait read it again at least every 20 ms.
    """

    @property
    def now_ns(self) -> int:
        """Nanoseconds since a fixed start, 0 to 2⁶⁴ − 1."""
        ...


Clock.__module__ = "hopgate_limiter"
