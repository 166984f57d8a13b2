"""`EventLogStore`: what happened to links, in order, for programs outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.webhooks import LinkEvent


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order, without those of links that were deleted; all up to *until* were looked at."""

    events: tuple[LinkEvent, ...]
    until: int


class EventLogStore(Protocol):
    """
    The log of events. Each is written in the transaction of what it tells of, whichever method makes it.

    Positions are given in the order of commits: a reader that has seen one has seen all before it. Raises
    (every method): Unavailable.
    """

    async def number_events(self, *, limit: int) -> int:
        """
        Give up to *limit* new events their positions; return how many.

        Until then no reader sees them. Of concurrent calls one does it, the others return 0.
        """
        ...

    async def expire_links(self, *, now: datetime, limit: int) -> int:
        """Write the event of up to *limit* links that have expired, once each; return how many were due."""
        ...

    async def events_after(self, position: int, *, limit: int) -> EventPage:
        """Return up to *limit* events after *position*; the page ends at *position* if there are none."""
        ...

    async def last_event(self) -> int:
        """Return the position of the latest event, 0 if there was none. Cheap: it is asked all the time."""
        ...

    async def forget_events(self, *, before: datetime, limit: int) -> int:
        """
        Forget those of the *limit* oldest events that are from before this time; return how many.

        Their deliveries are forgotten as well. The latest event stays.
        """
        ...
