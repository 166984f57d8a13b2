"""Relays the outbox: publishes changes that the gateway which made them did not get confirmed."""

from __future__ import annotations

import asyncio
import logging

from app.domain.errors import Unavailable
from app.ports import EventBus, OutboxEvent, OutboxStore
from app.service.outbox import publish_and_drop

log = logging.getLogger(__name__)

_BATCH = 200
# Longer than a publish can take (1.6 s), so that no other relay publishes the same rows meanwhile.
_LEASE_S = 2.0
_LONGEST_PAUSE_S = 1.0


class OutboxRelay:
    """
    Sweeps the outbox. Any number of relays may run.

    Rows that the broker did not confirm are kept and published again before more are leased.
    Otherwise each attempt would lease another batch in vain, and after an outage the broker would
    receive nothing until those leases ended.
    """

    def __init__(self, store: OutboxStore, bus: EventBus, *, poll_s: float = 0.2) -> None:
        self._store = store
        self._bus = bus
        self._poll_s = poll_s
        self._kept: dict[int, OutboxEvent] = {}
        self._was_stuck = False

    async def run(self) -> None:
        """Relay until cancelled; back off while the store or the broker does not answer."""
        pause = self._poll_s
        while True:
            try:
                moved, is_stuck = await self.sweep()
                reason = f"the broker did not confirm {len(self._kept)} of {moved} changes"
            except Unavailable as error:
                moved, is_stuck, reason = 0, True, str(error)
            self._log_transition(reason, is_stuck=is_stuck)
            if is_stuck:
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                await asyncio.sleep(pause)
            else:
                pause = self._poll_s
                if moved < _BATCH:
                    await asyncio.sleep(pause)

    async def sweep(self) -> tuple[int, bool]:
        """
        Publish up to one batch of rows; return its size, and whether some were not confirmed.

        Raises:
            Unavailable: the store did not answer.
        """
        events = self._kept
        if room := _BATCH - len(events):
            # A kept row whose lease has ended is leased again: by id, it is still published once.
            events |= {
                event.id: event for event in await self._store.take_events(limit=room, lease_s=_LEASE_S)
            }
        if not events:
            return 0, False
        unconfirmed = await publish_and_drop(self._store, self._bus, list(events.values()))
        self._kept = {event.id: event for event in unconfirmed}
        return len(events), bool(unconfirmed)

    def _log_transition(self, reason: str, *, is_stuck: bool) -> None:
        if is_stuck and not self._was_stuck:
            log.warning("outbox relay waiting: %s", reason)
        elif self._was_stuck and not is_stuck:
            log.warning("outbox relay resumed")
        self._was_stuck = is_stuck
