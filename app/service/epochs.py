"""Watches the epoch of the store, so that caches ahead of it lose (docs/adr/0012)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from app.domain.errors import Unavailable
from app.ports import Store

log = logging.getLogger(__name__)

# A failover or a restore shows within this time, plus the time until the store answers.
LOOK_EVERY_S = 1.0
# How long a gateway that starts waits for the epoch: without it, it takes what Redis holds of any.
FIRST_LOOK_S = 0.5


class EpochWatch:
    """
    Asks the store for its epoch every second.

    Args:
        begin: receives the epoch, again each time that it has been asked for.
    """

    def __init__(self, store: Store, begin: Callable[[int], None]) -> None:
        self._store = store
        self._begin = begin
        self._epoch: int | None = None

    async def first_look(self) -> None:
        """Ask once, for `FIRST_LOOK_S` at most: a silent store must not hold the start up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.look()

    async def look(self) -> None:
        """Ask once. Without an answer the epoch stays what it was."""
        try:
            epoch = await self._store.epoch()
        except Unavailable:
            return
        if self._epoch is not None and epoch != self._epoch:
            log.warning(
                "the store went back to an earlier state (failover or restore; epoch %d, was %d):"
                " cached links are read anew",
                epoch,
                self._epoch,
            )
        self._epoch = epoch
        self._begin(epoch)

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Ask now and every `LOOK_EVERY_S`, until cancelled."""
        while True:
            await self.look()
            await sleep(LOOK_EVERY_S)
