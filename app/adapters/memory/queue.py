"""One work queue in this process: pending events, their handler, retries and dead letters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.adapters.dispatcher import MAX_BATCH, Dispatcher
from app.concurrency.stopping import stop
from app.domain.events import Event, LinkChanged
from app.ports import MAX_ATTEMPTS, DeliveryObserver, EventHandler
from app.wire import dead_queue, retry_queue


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that failed `MAX_ATTEMPTS` times, and the last error of its handler."""

    event: Event
    reason: str


class _Pending(NamedTuple):
    """An event, the attempts made so far, and when it was committed or published (unix seconds)."""

    event: Event
    attempts: int
    at: float


class MemoryQueue:
    """
    A queue and the task that consumes it.

    Args:
        name: of the same queue on RabbitMQ.
        max_dead_letters: the most that are kept; the oldest are dropped.
        retry_delays_s: after the first attempt, the second, …; the last one repeats.
        sleep: waits for a number of seconds.
        wall: unix seconds, for the age of events.
    """

    def __init__(
        self,
        name: str,
        *,
        max_dead_letters: int,
        retry_delays_s: Sequence[int],
        sleep: Callable[[float], Awaitable[None]],
        wall: Callable[[], float],
    ) -> None:
        self._name = name
        self._retry_delays_s = tuple(retry_delays_s)
        self._sleep = sleep
        self._wall = wall
        self._pending: deque[_Pending] = deque()
        self.unacknowledged = 0
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
        now = self._wall()
        for event in events:
            committed_at = event.committed_at if isinstance(event, LinkChanged) else None
            self._pending.append(_Pending(event, 0, now if committed_at is None else committed_at))
        if events:
            self._has_arrived.set()

    def consume(self, handler: EventHandler, observer: DeliveryObserver) -> None:
        """Start the consuming task. One handler per queue."""
        if self._feeder is not None:
            raise RuntimeError(f"{self._name} has a consumer already")
        self._dispatcher = Dispatcher(self._name, handler, sleep=self._sleep)
        self._feeder = asyncio.create_task(
            self._feed(self._dispatcher, observer), name=f"inprocess-{self._name}"
        )

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

    async def _feed(self, dispatcher: Dispatcher, observer: DeliveryObserver) -> None:
        while True:
            while not self._pending:
                self._is_drained.set()
                self._has_arrived.clear()
                await self._has_arrived.wait()
            batch = self._next_batch()
            now = self._wall()
            for one in batch:
                observer.received(max(0.0, now - one.at))

            async def settle(reason: str | None, batch: list[_Pending] = batch) -> None:
                if reason is not None:
                    for one in batch:
                        self._retry(one._replace(attempts=one.attempts + 1), reason, observer)

            self.unacknowledged = len(batch)
            await dispatcher.dispatch([one.event for one in batch], settle)
            self.unacknowledged = 0
            # A handler that never awaits would starve the event loop while events are pending.
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Pending]:
        # A retried event is a batch of its own, so that one bad event cannot fail its neighbours twice.
        batch = [self._pending.popleft()]
        if batch[0].attempts == 0:
            while self._pending and len(batch) < MAX_BATCH and self._pending[0].attempts == 0:
                batch.append(self._pending.popleft())
        return batch

    def _retry(self, failed: _Pending, reason: str, observer: DeliveryObserver) -> None:
        if failed.attempts >= MAX_ATTEMPTS:
            self.dead_letters.append(DeadLetter(failed.event, reason))
            observer.parked(1)
            return
        observer.retried(1)
        delay_s = self._retry_delays_s[min(failed.attempts, len(self._retry_delays_s)) - 1]
        task = asyncio.create_task(self._put_later(failed, delay_s))
        self._retrying[task] = delay_s
        task.add_done_callback(lambda done: self._retrying.pop(done, None))

    async def _put_later(self, failed: _Pending, delay_s: int) -> None:
        await self._sleep(delay_s)
        self._pending.append(failed)
        self._has_arrived.set()
