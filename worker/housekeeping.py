"""Deletes records that only detect repeated requests and batches, after a day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from app.domain.errors import Unavailable
from app.ports import ClickStore, IdempotencyStore

# Clients may retry a create with the same Idempotency-Key for this long.
REQUEST_MEMORY = timedelta(hours=24)
# Longer than a batch of clicks is under way, unless the broker is unreachable for a day.
BATCH_MEMORY = timedelta(hours=24)
_PERIOD_S = 600.0


class _Store(ClickStore, IdempotencyStore, Protocol):
    """The stores that remember repetitions."""


class Housekeeping:
    """
    Forgets idempotent requests and click batches after a day.

    A clock that is set forward must not make it forget too early: a repeated request would be
    executed again. So its day is measured by the monotonic clock, from the start on.

    Args:
        clock: the present time in UTC.
        monotonic: seconds that never go back.
    """

    def __init__(
        self, store: _Store, *, clock: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._started_at, self._started = clock(), monotonic()

    async def run(self) -> None:
        """Clean up every 10 minutes, until cancelled."""
        while True:
            with suppress(Unavailable):
                await self.clean_up()
            await asyncio.sleep(_PERIOD_S)

    async def clean_up(self) -> None:
        """Forget what is older than a day. Raises Unavailable."""
        elapsed = timedelta(seconds=self._monotonic() - self._started)
        now = min(self._clock(), self._started_at + elapsed)
        await self._store.forget_requests(before=now - REQUEST_MEMORY)
        await self._store.forget_batches(before=now - BATCH_MEMORY)
