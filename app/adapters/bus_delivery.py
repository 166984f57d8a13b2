"""How a batch meets its handler: the same for every bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from app.domain.errors import Unavailable
from app.domain.events import Event
from app.ports import EventHandler

logger = logging.getLogger(__name__)

MAX_BATCH = 200
# A cache that comes back may hold old copies until this pause is over, so it is short.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0

# For so long in pauses a batch is held. RabbitMQ takes back what is not acknowledged within half an
# hour (its `consumer_timeout`), and what it has taken back ten times it gives up as poison.
_PATIENCE_S = 600.0

Settle = Callable[[str | None], Awaitable[None]]
Postpone = Callable[[], Awaitable[None]]


class Delivery:
    """Gives batches to one handler, one batch at a time, and can be stopped between two."""

    def __init__(self, handler: EventHandler, *, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._handler = handler
        self._sleep = sleep
        # Since something was handled.
        self._paused_s = 0.0
        # Held while a batch is worked on, so that `stop` waits for that and for nothing else.
        self._working = asyncio.Lock()

    async def give(self, events: Sequence[Event], settle: Settle, postpone: Postpone | None = None) -> None:
        """
        Call the handler, then *settle* with None, or with why it failed.

        Without *events* only *settle* is called. Whichever of the two raises `Unavailable`
        is called again, after a pause that grows. If that goes on for long, *postpone* is called
        instead: it has the events come again later, or raises `Unavailable` as well.
        """
        pause_s = _FIRST_PAUSE_S
        reason: str | None = None
        is_handled = not events
        while True:
            async with self._working:
                try:
                    if not is_handled:
                        reason = await self._try(events)
                        is_handled = True
                    await settle(reason)
                except Unavailable as error:
                    logger.warning("consuming pauses for %.1f s: %s", pause_s, error)
                    is_over = not is_handled and await self._is_postponed(postpone)
                else:
                    self._paused_s = 0.0
                    return
            await self._sleep(pause_s)
            self._paused_s += pause_s
            if is_over:
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def stop(self, feeder: asyncio.Task[None], *, timeout_s: float | None) -> None:
        """Cancel *feeder*, the task that calls `give`, once its current batch is settled."""
        try:
            async with asyncio.timeout(timeout_s), self._working:
                feeder.cancel()
        except TimeoutError:
            logger.warning("a handler did not finish within %s s and is cancelled", timeout_s)
            feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)

    async def _is_postponed(self, postpone: Postpone | None) -> bool:
        if postpone is None or self._paused_s < _PATIENCE_S:
            return False
        try:
            await postpone()
        except Unavailable as error:
            logger.warning("what waits cannot be postponed: %s", error)
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
            # Something inside the handler was cancelled, not we: consuming must go on.
            return "CancelledError"
        except Exception as error:
            # A supervisor of foreign code: whatever it raises, the next batch runs.
            logger.exception("a handler failed on %d events", len(events))
            return f"{type(error).__name__}: {error}"
        return None
