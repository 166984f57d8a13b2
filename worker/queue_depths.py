"""Measures the queues of the broker: how far this worker and all others are behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from app.domain.errors import Unavailable
from app.ports import EventBus, QueueDepth

# Some thirty round trips each time.
_PERIOD_S = 10.0


class QueueDepthWatch:
    """
    Reads the depth of the queues periodically, so that a scrape of metrics asks no dependency.

    `depths` is None while it is unknown: the broker did not answer.
    """

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self.depths: Mapping[str, QueueDepth] | None = None

    async def run(self) -> None:
        """Read the depths every 10 seconds, sooner while they are unknown, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_PERIOD_S if self.depths is not None else 1.0)

    async def look(self) -> None:
        """Read the depths once."""
        try:
            self.depths = await self._bus.queue_depths()
        except Unavailable:
            self.depths = None
