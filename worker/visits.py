"""Consumes descriptions of visits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from app.domain.errors import UnexpectedEvent
from app.domain.events import Event, VisitsDescribed, WorkQueue
from app.domain.link import Slug
from app.domain.visits import ALL_LINKS, Dimension, LinkVisits
from app.ports import Merge, VisitStore


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
        Add every description in *events*, each in a transaction of its own; return how many were known.

        Raises:
            Unavailable: repeating is safe, none is counted twice.
            UnexpectedEvent: one of *events* is no description; the bus dead-letters it.
        """
        stale = 0
        for event in events:
            if not isinstance(event, VisitsDescribed):
                raise UnexpectedEvent(WorkQueue.VISITS, event)
            described = replace(event, visits={**event.visits, ALL_LINKS: together(event.visits)})
            stale += not await self._store.add_visits(described, now=self._clock(), merge=self._merge)
        return stale


def together(visits: Mapping[Slug, LinkVisits]) -> LinkVisits:
    """Return the *visits* of several links as if they were of one."""
    counts: dict[Dimension, Counter[str]] = {}
    visitors: set[int] = set()
    for one in visits.values():
        for dimension, values in one.counts.items():
            counts.setdefault(dimension, Counter()).update(values)
        visitors.update(one.visitors)
    return LinkVisits({name: dict(values) for name, values in counts.items()}, tuple(visitors))
