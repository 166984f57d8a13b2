"""
The way of batches from a gateway process to the bus: in memory, or by the local disk.

A batch that the bus does not confirm is kept on disk under the same id, and published later. Each kind of
batches has a way of its own, so that none fills the disk of another or holds it up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import assert_never

from app.domain.events import ClicksCounted, Counted, VisitsDescribed
from app.domain.visits import Dimension
from app.ports import ClickSpool, EventBus

log = logging.getLogger(__name__)

# Batches per flush that are published from the disk: an outage of an hour is made up in three minutes.
_REPLAYED_A_FLUSH = 20


class BatchSender:
    """
    Publishes batches in order, or keeps them on disk. Belongs to one event loop.

    Args:
        name: of the publisher, for the log.
        what: the batches hold, for the log.
    """

    def __init__(self, name: str, what: str, bus: EventBus, spool: ClickSpool) -> None:
        self._name = name
        self._what = what
        self._bus = bus
        self._spool = spool
        self._confirming = True
        self.pending: deque[Counted] = deque()
        # Since the start: visits in batches that the bus confirmed, that were kept on disk first, and that
        # neither accepted.
        self.published = self.spilled = self.lost = 0

    @property
    def spooled_bytes(self) -> int:
        """The size of what is on disk."""
        return self._spool.kept_bytes

    async def send(self) -> None:
        """Publish what is pending, or keep it on disk. A cancelled call loses nothing: the next continues."""
        while self.pending:
            counted = self.pending[0]
            # While the broker does not confirm, write to disk first: a failing publish may take
            # seconds, and a crash in that time would lose the batch.
            if not (self._confirming and await self._publish([counted])):
                await self._keep(counted)
            self.pending.popleft()

    async def replay(self) -> None:
        """Publish batches from the disk."""
        kept = await self._spool.oldest(_REPLAYED_A_FLUSH)
        if kept:
            await self._spool.drop(await self._publish(kept))
        else:
            # With nothing on disk to probe the broker with, the next flush tries it.
            self._confirming = True

    async def _publish(self, batches: Sequence[Counted]) -> int:
        """Return how many of *batches* the bus confirmed, up to the first that it did not."""
        taken = list(await self._bus.publish(batches))
        confirmed = [*taken, False].index(False)
        self.published += visits_of(batches[:confirmed])
        if (confirmed == len(batches)) != self._confirming:
            self._confirming = not self._confirming
            if self._confirming:
                log.warning("%s: the broker confirms again", self._name)
            else:
                log.warning(
                    "%s: the broker does not confirm %d of %d batches; kept on disk",
                    self._name,
                    len(batches) - confirmed,
                    len(batches),
                )
        return confirmed

    async def _keep(self, counted: Counted) -> None:
        visits = visits_of([counted])
        if await self._spool.append(counted):
            self.spilled += visits
        else:
            self.lost += visits
            log.error("%s: %d %s lost, as neither bus nor disk accepts them", self._name, visits, self._what)


def visits_of(batches: Iterable[Counted]) -> int:
    """Return how many visits *batches* count, or describe."""
    visits = 0
    for batch in batches:
        match batch:
            case ClicksCounted():
                visits += sum(batch.clicks.values())
            case VisitsDescribed():
                visits += sum(
                    sum(one.counts.get(Dimension.KIND, {}).values()) for one in batch.visits.values()
                )
            case _:
                assert_never(batch)
    return visits
