"""How programs outside see events: which pass a filter, and as what bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.domain.webhooks import EventFilter, LinkEvent


class EventView(Protocol):
    """Shows events; the domains of their links must be known."""

    async def prepare(self, events: Sequence[LinkEvent]) -> None:
        """Get to know the domains of *events*, before they are shown. Raises Unavailable."""
        ...

    def passes(self, event: LinkEvent, wanted: EventFilter) -> bool:
        """Return whether *event* is *wanted*."""
        ...

    def message(self, event: LinkEvent) -> bytes:
        """Return *event* as JSON: its type, its time, and the link."""
        ...
