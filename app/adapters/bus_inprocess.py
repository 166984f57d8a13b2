"""`EventBus` in this process: what the embedded service uses. It lives as long as its process."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from app.adapters.bus_delivery import MAX_BATCH, Delivery
from app.domain.errors import Unavailable
from app.domain.events import Event, LinkChanged
from app.ports import MAX_ATTEMPTS, EventHandler, InvalidationListener
from app.wire import CACHE_QUEUE, DEAD_QUEUE, RETRY_DELAYS_S, retry_queue

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that was given up, and the last error its handler raised."""

    event: Event
    reason: str


class InProcessBus:
    """
    A bounded queue and one task that empties it.

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
            max_events: the most that wait, those between two attempts included.
            max_parked: the most dead letters that are kept; the oldest are forgotten.
            retry_delays_s: after the first attempt, the second, …; the last one repeats.
            sleep: waits for a number of seconds.
        """
        self._max_events = max_events
        self._retry_delays_s = tuple(retry_delays_s)
        self._sleep = sleep
        self._waiting: deque[tuple[Event, int]] = deque()  # with the attempts made so far
        self._arrived = asyncio.Event()
        self._held_back: dict[asyncio.Task[None], int] = {}  # with the delay in seconds
        self.parked: deque[Parked] = deque(maxlen=max_parked)
        self._listeners: list[InvalidationListener] = []
        self._delivery: Delivery | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._is_closed = False

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """See `EventBus.publish`."""
        room = 0 if self._is_closed else self._max_events - len(self._waiting) - len(self._held_back)
        taken = list(islice(events, max(0, room)))
        self._waiting.extend((event, 0) for event in taken)
        if taken:
            self._arrived.set()
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
        if self._feeder is not None:
            raise RuntimeError("the bus has a consumer already")
        self._delivery = Delivery(handler, sleep=self._sleep)
        self._feeder = asyncio.create_task(self._feed(self._delivery), name="inprocess-bus")

    async def ping(self) -> None:
        """See `EventBus.ping`."""
        if self._is_closed or (self._feeder is not None and self._feeder.done()):
            raise Unavailable("bus", "is closed")

    async def depths(self) -> Mapping[str, int]:
        """Return how many events wait in each queue, under the names they have on RabbitMQ."""
        delays = list(self._held_back.values())
        retries = {retry_queue(delay): delays.count(delay) for delay in self._retry_delays_s}
        return {CACHE_QUEUE: len(self._waiting), **retries, DEAD_QUEUE: len(self.parked)}

    async def aclose(self) -> None:
        """See `EventBus.aclose`. What still waits is forgotten: only the store remembers."""
        self._is_closed = True
        if self._delivery is not None and self._feeder is not None:
            await self._delivery.stop(self._feeder, timeout_s=_CLOSE_TIMEOUT_S)
        held_back = list(self._held_back)
        for task in held_back:
            task.cancel()
        await asyncio.gather(*held_back, return_exceptions=True)
        self._listeners.clear()

    async def _feed(self, delivery: Delivery) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            batch = self._take()

            async def settle(reason: str | None, batch: list[tuple[Event, int]] = batch) -> None:
                if reason is not None:
                    for event, attempts in batch:
                        self._retry(event, attempts + 1, reason)

            await delivery.give([event for event, _ in batch], settle)
            # A handler that never waits would let nobody else run while there is work.
            await asyncio.sleep(0)

    def _take(self) -> list[tuple[Event, int]]:
        # What failed before comes alone, so that one bad event cannot fail its neighbours twice.
        batch = [self._waiting.popleft()]
        if batch[0][1] == 0:
            while self._waiting and len(batch) < MAX_BATCH and self._waiting[0][1] == 0:
                batch.append(self._waiting.popleft())
        return batch

    def _retry(self, event: Event, attempts: int, reason: str) -> None:
        if attempts >= MAX_ATTEMPTS:
            self.parked.append(Parked(event, reason))
            return
        delay_s = self._retry_delays_s[min(attempts, len(self._retry_delays_s)) - 1]
        task = asyncio.create_task(self._hold_back(event, attempts, delay_s))
        self._held_back[task] = delay_s
        task.add_done_callback(lambda done: self._held_back.pop(done, None))

    async def _hold_back(self, event: Event, attempts: int, delay_s: int) -> None:
        await self._sleep(delay_s)
        self._waiting.append((event, attempts))
        self._arrived.set()
