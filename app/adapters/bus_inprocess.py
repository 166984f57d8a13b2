"""`EventBus` in this process: what the embedded service uses. It lives as long as its process."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.adapters.inprocess_stream import Parked, Stream
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged
from app.ports import EventHandler, InvalidationListener
from app.wire import CACHE_QUEUE, CLICKS_QUEUE, RETRY_DELAYS_S, WORK_QUEUES, work_queue

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0


class InProcessBus:
    """
    A bounded queue for each kind of work, and a task that empties it.

    `publish` answers False for what no longer fits; whoever asked keeps the debt.
    """

    def __init__(
        self,
        *,
        max_events: int = 100_000,
        max_parked: int = 1_000,
        retry_delays_s: Sequence[int] = RETRY_DELAYS_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """
        Make an empty bus.

        Args:
            max_events: the most that wait in all, those between two attempts included.
            max_parked: the most dead letters that are kept of each kind of work.
            retry_delays_s: after the first attempt, the second, …; the last one repeats.
            sleep: waits for a number of seconds.
        """
        self._max_events = max_events
        self._streams = {
            queue: Stream(queue, max_parked=max_parked, retry_delays_s=retry_delays_s, sleep=sleep)
            for queue in WORK_QUEUES
        }
        self._listeners: list[InvalidationListener] = []
        self._is_closed = False

    @property
    def parked(self) -> deque[Parked]:
        """The dead letters of cache events."""
        return self._streams[CACHE_QUEUE].parked

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """See `EventBus.publish`."""
        room = 0 if self._is_closed else self._max_events - sum(map(len, self._streams.values()))
        taken = list(events[: max(0, room)])
        for queue, stream in self._streams.items():
            stream.put([event for event in taken if work_queue(event) == queue])
        return [True] * len(taken) + [False] * (len(events) - len(taken))

    async def announce(self, changes: Sequence[LinkChanged]) -> None:
        """See `EventBus.announce`. The listeners have been called when it returns."""
        if self._is_closed:
            raise Unavailable("bus", "is closed")
        if not changes:
            return
        for listener in self._listeners:
            try:
                listener.on_changes(changes)
            except Exception:
                # One listener's mistake must not keep the change from the others.
                logger.exception("an invalidation listener raised")

    async def listen(self, listener: InvalidationListener) -> None:
        """See `EventBus.listen`. Nothing reconnects here, so there is one gap: the start."""
        self._listeners.append(listener)
        listener.on_gap()

    async def consume(self, handler: EventHandler) -> None:
        """See `EventBus.consume`. One handler a bus."""
        self._streams[CACHE_QUEUE].consume(handler)

    async def consume_clicks(self, handler: EventHandler) -> None:
        """See `EventBus.consume_clicks`. One handler a bus."""
        self._streams[CLICKS_QUEUE].consume(handler)

    async def ping(self) -> None:
        """See `EventBus.ping`."""
        if self._is_closed or any(stream.has_failed for stream in self._streams.values()):
            raise Unavailable("bus", "is closed")

    async def depths(self) -> Mapping[str, int]:
        """Return how many events wait in each queue, under the names they have on RabbitMQ."""
        return {name: n for stream in self._streams.values() for name, n in stream.depths().items()}

    async def aclose(self) -> None:
        """
        See `EventBus.aclose`.

        Changes that still wait are forgotten: the store remembers them. Nobody remembers
        clicks, so they are handled first, for as long as `_CLOSE_TIMEOUT_S`.
        """
        self._is_closed = True
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._streams[CLICKS_QUEUE].drain()
        except TimeoutError:
            logger.warning("%d batches of clicks are lost", len(self._streams[CLICKS_QUEUE]))
        for stream in self._streams.values():
            await stream.stop(timeout_s=_CLOSE_TIMEOUT_S)
        self._listeners.clear()
