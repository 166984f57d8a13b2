"""A tarpit: who is told "no" very often is told so later, and asks less often for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

# A visitor who mistypes does not notice the delay; whoever guesses in a closed loop on 64
# connections gets 640 answers a second instead of 20,000, and the loop is free for others.
FREE_PER_S = 500
DELAY_S = 0.1
# In one go: what passes at once stands before everybody else in the event loop.
BURST = 25
# Each is a few kilobytes. Beyond that a crowd is answered at once: there is no use in holding it.
MAX_HELD = 2048


class Tarpit:
    """
    Lets `free_per_s` answers pass, `burst` of them in one go, and holds the others back for `delay_s`.

    At most `max_held` at a time. Counts as the limiter does (GCRA, ITU-T I.371): by the time at
    which the next one would be due. Belongs to one event loop.

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
        """Return when one such answer may be given."""
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
