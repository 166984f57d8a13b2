"""The figures of the last second, computed once for any number of readers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.concurrency.single_flight import SingleFlight
from app.telemetry.overview import Overview, overview
from app.telemetry.samples import Samples

INTERVAL_S = 1.0
# Readers ask each second, and not exactly so.
_REUSED_S = 0.8
# Figures of a longer time would hide what happens now.
_LONGEST_S = 5.0


class RecentOverview:
    """
    Computes an overview from the samples of this request for it and of the one before.

    Args:
        read: returns the present samples.
        monotonic: seconds that never go back.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Samples]],
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._sleep = sleep
        self._computing: SingleFlight[str, Overview] = SingleFlight()
        self._last: tuple[float, Samples] | None = None
        self._overview: Overview | None = None

    async def get(self) -> Overview:
        """
        Return figures that are less than a second old. The first ones after a pause take a second.

        Raises:
            Unavailable: the samples cannot be read.
        """
        if self._overview is not None and self._age() < _REUSED_S:
            return self._overview
        return await self._computing.do("", self._compute)

    def _age(self) -> float:
        return float("inf") if self._last is None else self._monotonic() - self._last[0]

    async def _compute(self) -> Overview:
        if self._last is None or self._age() > _LONGEST_S:
            self._last = (self._monotonic(), await self._read())
            await self._sleep(INTERVAL_S)
        before_at, before = self._last
        at = self._monotonic()
        after = await self._read()
        self._overview = overview(before, after, at - before_at)
        self._last = (at, after)
        return self._overview
