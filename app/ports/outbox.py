"""`OutboxStore`: changes that are committed and not yet delivered to the caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.events import LinkChanged

# A new row is due after this time, so that the process that wrote it can deliver it first.
OUTBOX_GRACE_S = 2.0
# A row that is due later than this was written before the clock of the database was set back: it is due.
OUTBOX_LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """One outbox row: a change that the broker has not confirmed yet. Deleted once confirmed."""

    id: int
    change: LinkChanged


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """The backlog: number of rows, the age of the oldest in seconds, and the lowest id, if any."""

    rows: int
    oldest_s: float
    first_id: int | None = None

    def has_moved(self, earlier: OutboxDepth) -> bool:
        """
        Return whether rows were delivered since *earlier*: a backlog that shrinks is not stalled.

        While more is written than is delivered, the number of rows grows and the lowest id rises.
        """
        return self.rows < earlier.rows or self.first_id != earlier.first_id


class OutboxStore(Protocol):
    """
    Outbox rows. `LinkStore` writes them; the publisher and the relay delete them.

    Raises (every method): Unavailable.
    """

    async def take_events(self, *, limit: int, lease_s: float) -> Sequence[OutboxEvent]:
        """
        Lease up to *limit* rows that are due; no other caller gets them for *lease_s*.

        A new row is due after `OUTBOX_GRACE_S`. A work set, not a cursor: rows that commit late
        are not skipped. After the clock was set back, rows are due `OUTBOX_LONGEST_WAIT_S` later, or
        twice *lease_s*.
        """
        ...

    async def drop_events(self, ids: Sequence[int]) -> None:
        """Delete rows that were delivered. Unknown ids are ignored."""
        ...

    async def outbox_depth(self) -> OutboxDepth:
        """Return the backlog, rows that are not due included."""
        ...
