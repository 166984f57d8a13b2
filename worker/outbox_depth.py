"""Measures the outbox: how far the caches lag behind the store, and whether they catch up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.domain.errors import Unavailable
from app.ports import OutboxDepth, OutboxStore

_PERIOD_S = 5.0


class OutboxDepthWatch:
    """
    Reads the depth of the outbox periodically, so that a scrape of metrics asks no dependency.

    `depth` is None while it is unknown: the store did not answer. `stalled_s` is for how many seconds
    rows have waited and none was delivered: a million rows that are being delivered are no fault.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, store: OutboxStore, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self.depth: OutboxDepth | None = None
        self.stalled_s = 0.0
        self._last = OutboxDepth(0, 0.0)
        self._moved_at = monotonic()

    async def run(self) -> None:
        """Read the depth every 5 seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_PERIOD_S)

    async def look(self) -> None:
        """Read the depth once."""
        try:
            self.depth = await self._store.outbox_depth()
        except Unavailable:
            self.depth = None
            return
        now = self._monotonic()
        if not self.depth.rows or self.depth.has_moved(self._last):
            self._moved_at = now
        self._last = self.depth
        self.stalled_s = now - self._moved_at
