"""Consumes descriptions of visits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from app.domain.errors import UnexpectedEvent
from app.domain.events import Event, VisitsDescribed, WorkQueue
from app.domain.visit_parts import parts_of
from app.ports import Merge, VisitStore

# Of the links in one transaction, about; it is over as soon as there are as many.
MAX_ROWS = 40_000


class VisitConsumer:
    """
    Counts visits by what they look like, for each link and for all of them, each batch once.

    Args:
        merge: adds visitors to a sketch of them.
        clock: the present time in UTC.
    """

    def __init__(self, store: VisitStore, merge: Merge, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._merge = merge
        self._clock = clock

    async def handle(self, events: Sequence[Event]) -> int:
        """
        Add all *events*, in as few transactions as are short enough; return how many were known.

        Raises:
            Unavailable: repeating is safe, none is counted twice.
            UnexpectedEvent: one of *events* is no description; the bus dead-letters it.
        """
        described: list[VisitsDescribed] = []
        for event in events:
            if not isinstance(event, VisitsDescribed):
                raise UnexpectedEvent(WorkQueue.VISITS, event)
            described.append(event)
        stale = 0
        for part in parts_of(described, MAX_ROWS, lambda _: 1):
            stale += await self._store.add_visits(part, now=self._clock(), merge=self._merge)
        return stale
