"""Deletes what has no use any more: memory of requests and batches, sessions that are over, old history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from app.domain.errors import Unavailable
from app.ports import ClickStore, HistoryStore, IdempotencyStore, VisitorKeyStore, VisitStore

# Clients may retry a create with the same Idempotency-Key for this long.
REQUEST_MEMORY = timedelta(hours=24)
# Longer than a batch of clicks is under way, unless the broker is unreachable for a day.
BATCH_MEMORY = timedelta(hours=24)
# The default of HOPGATE_HISTORY_DAYS.
HISTORY_MEMORY = timedelta(days=90)
# The default of HOPGATE_EVENTS_DAYS.
EVENT_MEMORY = timedelta(days=7)
# The default of HOPGATE_ANALYTICS_DAYS.
VISIT_MEMORY = timedelta(days=365)
# After its day: a process may be behind by less than that.
_KEY_MEMORY = timedelta(days=1)
# Changes, or counts of visits, that are forgotten in one transaction: a few milliseconds.
_CHANGES = 1000
_PERIOD_S = 600.0


class _Store(ClickStore, IdempotencyStore, HistoryStore, VisitStore, VisitorKeyStore, Protocol):
    """The stores whose memory ends."""

    async def forget_events(self, *, before: datetime, limit: int) -> int:
        """As `EventLogStore.forget_events`."""
        ...

    async def forget_sessions(self, *, before: datetime, limit: int) -> int:
        """As `ConsoleSessionStore.forget_sessions`."""
        ...


class Housekeeping:
    """
    Forgets idempotent requests and click batches after a day, and what is kept for longer after that.

    A clock that is set forward must not make it forget too early: a repeated request would be
    executed again. So its day is measured by the monotonic clock, from the start on.

    Args:
        clock: the present time in UTC.
        monotonic: seconds that never go back.
        history: how long the changes of links are kept.
        events: how long events are kept.
        visits: how long it is kept what visits looked like.
    """

    def __init__(
        self,
        store: _Store,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        history: timedelta = HISTORY_MEMORY,
        events: timedelta = EVENT_MEMORY,
        visits: timedelta = VISIT_MEMORY,
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._history = history
        self._events = events
        self._visits = visits
        self._started_at, self._started = clock(), monotonic()

    async def run(self) -> None:
        """Clean up every 10 minutes, until cancelled."""
        while True:
            with suppress(Unavailable):
                await self.clean_up()
            await asyncio.sleep(_PERIOD_S)

    async def clean_up(self) -> None:
        """Forget what is older than its time. Raises Unavailable."""
        elapsed = timedelta(seconds=self._monotonic() - self._started)
        now = min(self._clock(), self._started_at + elapsed)
        await self._store.forget_requests(before=now - REQUEST_MEMORY)
        await self._store.forget_batches(before=now - BATCH_MEMORY)
        forgotten = _CHANGES
        while forgotten == _CHANGES:
            forgotten = await self._store.forget_sessions(before=now, limit=_CHANGES)
        forgotten = _CHANGES
        while forgotten == _CHANGES:
            forgotten = await self._store.forget_history(before=now - self._history, limit=_CHANGES)
        forgotten = _CHANGES
        while forgotten == _CHANGES:
            forgotten = await self._store.forget_events(before=now - self._events, limit=_CHANGES)
        await self._store.forget_visitor_keys(before=(now - _KEY_MEMORY).date())
        forgotten = _CHANGES
        while forgotten >= _CHANGES:
            forgotten = await self._store.forget_visits(before=now - self._visits, limit=_CHANGES)
        while await self._store.roll_up_visits(since=now - self._visits, until=now):
            pass
