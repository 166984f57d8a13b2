"""The turn of a request that this process sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from hopgate_limiter import Decision, Key, Limiter, Rate
from hopgate_limiter.contrib import _arguments

R = TypeVar("R")


def limiter_of(rates: tuple[str | Rate | Limiter, ...]) -> Limiter:
    """
    Return the limiter that was given, or make one of the rates.

    Raises:
        TypeError: a limiter among other rates. ValueError: as `Limiter`.
    """
    if len(rates) == 1 and isinstance(rates[0], Limiter):
        return rates[0]
    if any(isinstance(rate, Limiter) for rate in rates):
        raise TypeError("a limiter must be the only rate: several are several limits")
    return Limiter(*cast("tuple[str | Rate, ...]", rates))


class Budget(Generic[R]):
    """Gives requests their turns."""

    def __init__(
        self,
        rates: tuple[str | Rate | Limiter, ...],
        key: Key | Callable[[R], Key | None],
        cost: int | Callable[[R], int],
        timeout: float | None,
        exceeded: Callable[[Decision, R], Exception],
    ) -> None:
        """Set what `LimitedTransport` documents; *exceeded* makes the error of a request without a turn."""
        _arguments.cost(cost)
        _arguments.seconds_or_none("timeout", timeout)
        self._limiter = limiter_of(rates)
        self._key = key
        self._cost = cost
        self._timeout = timeout
        self._exceeded = exceeded

    def wait(self, request: R) -> None:
        """Wait for the turn of a request; other threads run meanwhile."""
        asked = self._asked(request)
        if asked is not None:
            self._admit(self._limiter.acquire(*asked, timeout=self._timeout), request)

    async def wait_async(self, request: R) -> None:
        """Wait for the turn of a request; other tasks run meanwhile."""
        asked = self._asked(request)
        if asked is not None:
            self._admit(await self._limiter.acquire_async(*asked, timeout=self._timeout), request)

    def _asked(self, request: R) -> tuple[Key, int] | None:
        key = self._key(request) if callable(self._key) else self._key
        if key is None:
            return None
        return key, self._cost(request) if callable(self._cost) else self._cost

    def _admit(self, decision: Decision, request: R) -> None:
        if not decision:
            raise self._exceeded(decision, request)
