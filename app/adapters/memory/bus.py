"""`EventBus` in this process, for embedded mode. Its events last as long as the process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.adapters.memory.queue import DeadLetter, MemoryQueue
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged, WorkQueue, work_queue
from app.ports import DeliveryObserver, EventHandler, InvalidationListener, QueueDepth, Unobserved
from app.wire import RETRY_DELAYS_S

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
_UNOBSERVED = Unobserved()


class InProcessBus:
    """
    A work queue for each kind of event, with one bound on all of them together.

    Backpressure: `publish` returns False for events that do not fit, and the publisher keeps them.
    """

    def __init__(
        self,
        *,
        max_events: int = 100_000,
        max_dead_letters: int = 1_000,
        retry_delays_s: Sequence[int] = RETRY_DELAYS_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Make an empty bus.

        Args:
            max_events: the most pending events in all queues, those between two attempts included.
            max_dead_letters: the most that each queue keeps.
            retry_delays_s: after the first attempt, the second, …; the last one repeats.
            sleep: waits for a number of seconds.
            wall: unix seconds, for the age of events.
        """
        self._max_events = max_events
        self._queues = {
            queue: MemoryQueue(
                queue,
                max_dead_letters=max_dead_letters,
                retry_delays_s=retry_delays_s,
                sleep=sleep,
                wall=wall,
            )
            for queue in WorkQueue
        }
        self._listeners: list[InvalidationListener] = []
        self._is_closed = False

    @property
    def dead_letters(self) -> deque[DeadLetter]:
        """The dead letters of cache events."""
        return self._queues[WorkQueue.CACHE].dead_letters

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        room = 0 if self._is_closed else self._max_events - sum(map(len, self._queues.values()))
        accepted = list(events[: max(0, room)])
        for name, queue in self._queues.items():
            queue.put([event for event in accepted if work_queue(event) == name])
        return [True] * len(accepted) + [False] * (len(events) - len(accepted))

    async def announce(self, changes: Sequence[LinkChanged]) -> None:
        """Every listener has been called when it returns."""
        if self._is_closed:
            raise Unavailable("bus", "is closed")
        if not changes:
            return
        for listener in self._listeners:
            try:
                listener.on_changes(changes)
            except Exception:
                # The other listeners still need the change.
                logger.exception("invalidation listener raised on %d changes", len(changes))

    async def listen(self, listener: InvalidationListener) -> None:
        """`on_gap` is called once, at the start: nothing ever disconnects."""
        self._listeners.append(listener)
        listener.on_gap()

    async def consume(
        self, queue: WorkQueue, handler: EventHandler, observer: DeliveryObserver = _UNOBSERVED
    ) -> None:
        self._queues[queue].consume(handler, observer)

    async def ping(self) -> None:
        if self._is_closed or any(queue.has_failed for queue in self._queues.values()):
            raise Unavailable("bus", "is closed")

    async def depths(self) -> Mapping[str, int]:
        """Return how many events are in each queue, under the names they have on RabbitMQ."""
        return {name: n for queue in self._queues.values() for name, n in queue.depths().items()}

    async def queue_depths(self) -> Mapping[str, QueueDepth]:
        unacknowledged = {str(name): queue.unacknowledged for name, queue in self._queues.items()}
        ready = await self.depths()
        return {name: QueueDepth(depth, unacknowledged.get(name)) for name, depth in ready.items()}

    async def aclose(self) -> None:
        """
        Handle pending clicks and visits for at most `_CLOSE_TIMEOUT_S`: no other place keeps them.

        Pending changes are dropped, as the outbox keeps them.
        """
        self._is_closed = True
        counting = self._queues[WorkQueue.CLICKS], self._queues[WorkQueue.VISITS]
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                for queue in counting:
                    await queue.drain()
        except TimeoutError:
            logger.warning("in-process bus closed: %d click batches lost", sum(map(len, counting)))
        for queue in self._queues.values():
            await queue.stop(timeout_s=_CLOSE_TIMEOUT_S)
        self._listeners.clear()
