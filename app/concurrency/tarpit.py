"""A tarpit: delays negative responses when there are very many, which slows down scans."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

# A mistyped address is hardly delayed. A scan in a closed loop on 64 connections gets 640 responses
# a second instead of 20,000, and leaves the event loop to other requests.
FREE_PER_S = 500
DELAY_S = 0.1
# A burst occupies the event loop before all other requests.
BURST = 25
# Each takes a few kilobytes. Responses beyond this are sent at once.
MAX_HELD = 2048


class Tarpit:
    """
    Passes `free_per_s` responses a second, in bursts of `burst`, and delays the others by `delay_s`.

    Delays at most `max_held` at a time. Counts by GCRA (ITU-T I.371), as the limiter does. Belongs to
    one event loop.

    Args:
        monotonic: seconds that never go back.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        *,
        free_per_s: int = FREE_PER_S,
        burst: int = BURST,
        delay_s: float = DELAY_S,
        max_held: int = MAX_HELD,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval_s = 1 / free_per_s
        self._burst_s = (burst - 1) / free_per_s
        self._delay_s = delay_s
        self._max_held = max_held
        self._monotonic = monotonic
        self._sleep = sleep
        self._next_due = 0.0
        self.held = 0

    async def hold(self) -> None:
        """Return when one response may be sent."""
        now = self._monotonic()
        due = max(self._next_due, now)
        if due - now <= self._burst_s:
            self._next_due = due + self._interval_s
            return
        if self.held >= self._max_held:
            return
        self.held += 1
        try:
            await self._sleep(self._delay_s)
        finally:
            self.held -= 1
