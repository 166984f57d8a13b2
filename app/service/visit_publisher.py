"""Publishes what visits looked like, behind their clicks."""

from __future__ import annotations

from datetime import datetime

from app.ports import ClickSpool, EventBus
from app.service.sending import BatchSender
from app.service.visits import VisitDescriber


class VisitPublisher:
    """
    Publishes descriptions of visits, or keeps them on a disk of their own. Belongs to one event loop.

    Clicks do not wait for them: a queue of descriptions that is full, or a disk, holds up no total.
    """

    def __init__(self, describer: VisitDescriber, bus: EventBus, spool: ClickSpool) -> None:
        self._describer = describer
        self._sender = BatchSender("visit publisher", "visits' descriptions", bus, spool)

    @property
    def undescribed(self) -> int:
        """How many visits since the start have no description: not read, or lost on the way."""
        return self._describer.dropped + self._sender.lost

    @property
    def spooled_bytes(self) -> int:
        """The size of what is on disk."""
        return self._sender.spooled_bytes

    @property
    def is_behind(self) -> bool:
        """Does something that was taken wait to be described?"""
        return self._describer.is_behind

    def cut(self, now: datetime) -> None:
        """Take what was noted since the last call as visits of *now*."""
        self._describer.cut(now)

    async def flush(self) -> None:
        """Publish what was taken, or keep it on disk. A cancelled flush loses nothing."""
        self._sender.pending.extend(await self._describer.take())
        await self._sender.send()
        await self._sender.replay()
