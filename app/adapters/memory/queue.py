"""One work queue in this process: pending events, their handler, retries and dead letters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from app.adapters.dispatcher import MAX_BATCH, Dispatcher
from app.concurrency.stopping import stop
from app.domain.events import Event
from app.ports import MAX_ATTEMPTS, EventHandler
from app.wire import dead_queue, retry_queue


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that failed `MAX_ATTEMPTS` times, and the last error of its handler."""

    event: Event
    reason: str


class MemoryQueue:
    """
    A queue and the task that consumes it.

    Args:
        name: of the same queue on RabbitMQ.
        max_dead_letters: the most that are kept; the oldest are dropped.
        retry_delays_s: after the first attempt, the second, …; the last one repeats.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        max_dead_letters: int,
        retry_delays_s: Sequence[int],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._name = name
        self._retry_delays_s = tuple(retry_delays_s)
        self._sleep = sleep
        self._pending: deque[tuple[Event, int]] = deque()  # with the attempts made so far
        self._has_arrived = asyncio.Event()
        self._is_drained = asyncio.Event()
        self._retrying: dict[asyncio.Task[None], int] = {}  # with the delay in seconds
        self.dead_letters: deque[DeadLetter] = deque(maxlen=max_dead_letters)
        self._dispatcher: Dispatcher | None = None
        self._feeder: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many events are pending, those between two attempts included."""
        return len(self._pending) + len(self._retrying)

    @property
    def has_failed(self) -> bool:
        """Did the consuming task end?"""
        return self._feeder is not None and self._feeder.done()

    def put(self, events: Sequence[Event]) -> None:
        """Append *events*."""
        self._pending.extend((event, 0) for event in events)
        if events:
            self._has_arrived.set()

    def consume(self, handler: EventHandler) -> None:
        """Start the consuming task. One handler per queue."""
        if self._feeder is not None:
            raise RuntimeError(f"{self._name} has a consumer already")
        self._dispatcher = Dispatcher(self._name, handler, sleep=self._sleep)
        self._feeder = asyncio.create_task(self._feed(self._dispatcher), name=f"inprocess-{self._name}")

    def depths(self) -> Mapping[str, int]:
        """Return how many events are in each queue, under the names they have on RabbitMQ."""
        delays = list(self._retrying.values())
        retries = {retry_queue(delay, self._name): delays.count(delay) for delay in self._retry_delays_s}
        return {self._name: len(self._pending), **retries, dead_queue(self._name): len(self.dead_letters)}

    async def drain(self) -> None:
        """Return when no event is pending, at once if there is no consumer; retries are not awaited."""
        if self._feeder is not None and self._pending:
            self._is_drained.clear()
            await self._is_drained.wait()

    async def stop(self, *, timeout_s: float) -> None:
        """Finish the current batch and drop what is pending."""
        if self._dispatcher is not None and self._feeder is not None:
            await self._dispatcher.stop(self._feeder, timeout_s=timeout_s)
        await stop(self._retrying, f"a retry of {self._name}")

    async def _feed(self, dispatcher: Dispatcher) -> None:
        while True:
            while not self._pending:
                self._is_drained.set()
                self._has_arrived.clear()
                await self._has_arrived.wait()
            batch = self._next_batch()

            async def settle(reason: str | None, batch: list[tuple[Event, int]] = batch) -> None:
                if reason is not None:
                    for event, attempts in batch:
                        self._retry(event, attempts + 1, reason)

            await dispatcher.dispatch([event for event, _ in batch], settle)
            # A handler that never awaits would starve the event loop while events are pending.
            await asyncio.sleep(0)

    def _next_batch(self) -> list[tuple[Event, int]]:
        # A retried event is a batch of its own, so that one bad event cannot fail its neighbours twice.
        batch = [self._pending.popleft()]
        if batch[0][1] == 0:
            while self._pending and len(batch) < MAX_BATCH and self._pending[0][1] == 0:
                batch.append(self._pending.popleft())
        return batch

    def _retry(self, event: Event, attempts: int, reason: str) -> None:
        if attempts >= MAX_ATTEMPTS:
            self.dead_letters.append(DeadLetter(event, reason))
            return
        delay_s = self._retry_delays_s[min(attempts, len(self._retry_delays_s)) - 1]
        task = asyncio.create_task(self._put_later(event, attempts, delay_s))
        self._retrying[task] = delay_s
        task.add_done_callback(lambda done: self._retrying.pop(done, None))

    async def _put_later(self, event: Event, attempts: int, delay_s: int) -> None:
        await self._sleep(delay_s)
        self._pending.append((event, attempts))
        self._has_arrived.set()
