"""Consumes batches of clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from app.domain.errors import UnexpectedEvent
from app.domain.events import ClicksCounted, Event, WorkQueue
from app.ports import ClickStore


class ClickConsumer:
    """
    Adds batches of clicks to the totals in the store, each batch once.

    Args:
        clock: the present time in UTC.
    """

    def __init__(self, store: ClickStore, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        # Clicks in the batches that were added since the start.
        self.added = 0
        self._clock = clock

    async def handle(self, events: Sequence[Event]) -> int:
        """
        Add every batch in *events*, each in a transaction of its own; return how many had been added before.

        Raises:
            Unavailable: repeating the batches is safe, none is counted twice.
            UnexpectedEvent: one of *events* is not a batch of clicks; the bus dead-letters it.
        """
        stale = 0
        for event in events:
            if not isinstance(event, ClicksCounted):
                raise UnexpectedEvent(WorkQueue.CLICKS, event)
            if await self._store.add_clicks(event, now=self._clock()):
                self.added += sum(event.clicks.values())
            else:
                stale += 1
        return stale
