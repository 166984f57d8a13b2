"""One stream of events in this process: what waits, who handles it, and what failed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from app.adapters.bus_delivery import MAX_BATCH, Delivery
from app.domain.events import Event
from app.ports import MAX_ATTEMPTS, EventHandler
from app.wire import dead_queue, retry_queue


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that was given up, and the last error its handler raised."""

    event: Event
    reason: str


class Stream:
    """
    A queue and one task that empties it.

    Args:
        queue: the name that it has on RabbitMQ.
        max_parked: the most dead letters that are kept; the oldest are forgotten.
        retry_delays_s: after the first attempt, the second, …; the last one repeats.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        queue: str,
        *,
        max_parked: int,
        retry_delays_s: Sequence[int],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._queue = queue
        self._retry_delays_s = tuple(retry_delays_s)
        self._sleep = sleep
        self._waiting: deque[tuple[Event, int]] = deque()  # with the attempts made so far
        self._arrived = asyncio.Event()
        self._all_done = asyncio.Event()
        self._held_back: dict[asyncio.Task[None], int] = {}  # with the delay in seconds
        self.parked: deque[Parked] = deque(maxlen=max_parked)
        self._delivery: Delivery | None = None
        self._feeder: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many events wait, those between two attempts included."""
        return len(self._waiting) + len(self._held_back)

    @property
    def has_failed(self) -> bool:
        """Did the task that empties it end?"""
        return self._feeder is not None and self._feeder.done()

    def put(self, events: Sequence[Event]) -> None:
        """Take *events* on."""
        self._waiting.extend((event, 0) for event in events)
        if events:
            self._arrived.set()

    def consume(self, handler: EventHandler) -> None:
        """Start to feed *handler*."""
        if self._feeder is not None:
            raise RuntimeError(f"{self._queue} has a consumer already")
        self._delivery = Delivery(handler, sleep=self._sleep)
        self._feeder = asyncio.create_task(self._feed(self._delivery), name=f"inprocess-{self._queue}")

    def depths(self) -> Mapping[str, int]:
        """Return how many events wait in each queue, under the names they have on RabbitMQ."""
        delays = list(self._held_back.values())
        retries = {retry_queue(delay, self._queue): delays.count(delay) for delay in self._retry_delays_s}
        return {self._queue: len(self._waiting), **retries, dead_queue(self._queue): len(self.parked)}

    async def drain(self) -> None:
        """Return when everything that waited has been handled, if anybody handles it."""
        if self._feeder is not None and self._waiting:
            self._all_done.clear()
            await self._all_done.wait()

    async def stop(self, *, timeout_s: float) -> None:
        """Finish the current batch and forget what waits."""
        if self._delivery is not None and self._feeder is not None:
            await self._delivery.stop(self._feeder, timeout_s=timeout_s)
        held_back = list(self._held_back)
        for task in held_back:
            task.cancel()
        await asyncio.gather(*held_back, return_exceptions=True)

    async def _feed(self, delivery: Delivery) -> None:
        while True:
            while not self._waiting:
                self._all_done.set()
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
