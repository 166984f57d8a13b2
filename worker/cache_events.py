"""Consumes the events after which the shared cache may be old."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.events import Event, LinkChanged
from app.service.cache_sync import CacheSync
from worker.sampling import ConsistencySampler


class CacheEventConsumer:
    """Applies events to the shared cache, and has a sample of the changes verified later."""

    def __init__(self, sync: CacheSync, sampler: ConsistencySampler) -> None:
        self._sync = sync
        self._sampler = sampler

    async def handle(self, events: Sequence[Event]) -> int:
        """
        Bring the shared cache up to date with *events*; return how many of them were stale.

        Raises:
            Unavailable: safe to repeat.
            UnexpectedEvent: one of *events* is not a cache event; the bus dead-letters it.
        """
        stale = await self._sync.apply(events)
        self._sampler.note([event for event in events if isinstance(event, LinkChanged)])
        return stale
