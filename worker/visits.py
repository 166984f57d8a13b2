"""Consumes descriptions of visits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from app.domain.errors import UnexpectedEvent
from app.domain.events import Event, VisitsDescribed, WorkQueue
from app.ports import Merge, VisitStore

# Of the descriptions that are added in one transaction.
_MAX_VALUES = 40_000


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
        for part in _parts(described):
            stale += await self._store.add_visits(part, now=self._clock(), merge=self._merge)
        return stale


def _parts(described: Iterable[VisitsDescribed]) -> Iterator[Sequence[VisitsDescribed]]:
    """Part *described* by the number of values, so that each part is added in a fraction of a second."""
    part: list[VisitsDescribed] = []
    values = 0
    for one in described:
        added = sum(len(by) for visits in one.visits.values() for by in visits.counts.values())
        if part and values + added > _MAX_VALUES:
            yield part
            part, values = [], 0
        part.append(one)
        values += added
    if part:
        yield part
