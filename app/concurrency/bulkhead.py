"""A bulkhead: bounds concurrent calls, waiting calls, and how long they wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Bulkhead:
    """
    Admits *max_running* calls at a time; *max_waiting* more wait in order of arrival.

    Belongs to one event loop. Every successful enter is followed by exactly one `leave`.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Enter if there is room and no call waits; return whether it did."""
        if self.running >= self._max_running or self._waiting:
            return False
        self.running += 1
        return True

    async def enter(self, wait_s: float) -> bool:
        """Enter, waiting up to *wait_s*; False after that, or if too many calls wait already."""
        if self.try_enter():
            return True
        if len(self._waiting) >= self._max_waiting:
            return False
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except TimeoutError:
            return self._took(turn)
        except asyncio.CancelledError:
            if self._took(turn):
                self.leave()
            raise
        return True

    def leave(self) -> None:
        """Leave; the call that has waited longest enters instead."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    def _took(self, turn: asyncio.Future[None]) -> bool:
        """Return whether the turn came at the moment at which the wait ended."""
        self._waiting.pop(turn, None)
        return turn.done() and not turn.cancelled()
