"""Dispatching batches of events to a handler: retries, pauses and a clean stop, alike for every bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from app.concurrency.stopping import STOP_S, retrieve, stop
from app.domain.errors import Unavailable
from app.domain.events import Event
from app.ports import EventHandler

logger = logging.getLogger(__name__)

MAX_BATCH = 200
# A restarted cache may serve stale entries until this pause is over, so it is short.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0

# A batch is held for this long in pauses, and then postponed. RabbitMQ requeues what is not
# acknowledged within half an hour (its `consumer_timeout`), and dead-letters what it has requeued ten
# times.
_MAX_PAUSED_S = 600.0

Settle = Callable[[str | None], Awaitable[None]]
Postpone = Callable[[], Awaitable[None]]


class Dispatcher:
    """
    Calls one handler with one batch at a time, and can be stopped between two batches.

    Args:
        queue: the name of the queue, for the log.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self, queue: str, handler: EventHandler, *, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._sleep = sleep
        # Since the last batch was settled.
        self._paused_s = 0.0
        # Held while a batch is processed, and not during pauses: `stop` waits for it.
        self._busy = asyncio.Lock()

    async def dispatch(
        self, events: Sequence[Event], settle: Settle, postpone: Postpone | None = None
    ) -> None:
        """
        Call the handler, then *settle* with None, or with the reason of the failure.

        Without *events* only *settle* is called. `Unavailable` from either is retried after a pause
        that doubles. After `_MAX_PAUSED_S` of pauses *postpone* is called instead: it schedules the
        events for later, or raises `Unavailable` as well.
        """
        pause_s = _FIRST_PAUSE_S
        reason: str | None = None
        is_handled = not events
        while True:
            async with self._busy:
                try:
                    if not is_handled:
                        reason = await self._try(events)
                        is_handled = True
                    await settle(reason)
                except Unavailable as error:
                    logger.warning("consumer %s paused for %.1f s: %s", self._queue, pause_s, error)
                    is_postponed = not is_handled and await self._try_postpone(len(events), postpone)
                else:
                    if self._paused_s:
                        logger.warning("consumer %s resumed: %.1f s of pauses", self._queue, self._paused_s)
                    self._paused_s = 0.0
                    return
            await self._sleep(pause_s)
            self._paused_s += pause_s
            if is_postponed:
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def stop(self, feeder: asyncio.Task[None], *, timeout_s: float | None) -> None:
        """
        Cancel *feeder*, the task that calls `dispatch`, once its current batch is settled.

        After *timeout_s* the handler is cancelled as well; if it goes on, it is abandoned.
        """
        try:
            async with asyncio.timeout(timeout_s), self._busy:
                feeder.cancel()
        except TimeoutError:
            logger.warning("handler of %s cancelled: not finished within %s s", self._queue, timeout_s)
        await stop([feeder], f"the handler of {self._queue}", within_s=None if timeout_s is None else STOP_S)
        if feeder.done():
            retrieve(feeder)

    async def _try_postpone(self, count: int, postpone: Postpone | None) -> bool:
        if postpone is None or self._paused_s < _MAX_PAUSED_S:
            return False
        try:
            await postpone()
        except Unavailable as error:
            logger.warning("consumer %s cannot postpone %d events: %s", self._queue, count, error)
            return False
        return True

    async def _try(self, events: Sequence[Event]) -> str | None:
        try:
            await self._handler(events)
        except Unavailable:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The handler cancelled something of its own; this task goes on.
            return "CancelledError"
        except Exception as error:
            # A supervisor of foreign code: whatever it raises, the next batch is dispatched.
            logger.exception("handler of %s failed on %d events", self._queue, len(events))
            return f"{type(error).__name__}: {error}"
        return None
