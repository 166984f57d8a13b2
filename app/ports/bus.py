"""`EventBus`: events for one consumer among many, invalidations for every gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.events import Event, LinkChanged, WorkQueue

MAX_ATTEMPTS = 6

# What it returns is ignored.
EventHandler = Callable[[Sequence[Event]], Awaitable[object]]


class InvalidationListener(Protocol):
    """Receives the changes of the shared cache. Must not block or raise."""

    def on_changes(self, changes: Sequence[LinkChanged]) -> None:
        """These links are now at least at these versions."""
        ...

    def on_gap(self) -> None:
        """Changes may have been missed: every entry held may be old."""
        ...


class DeliveryObserver(Protocol):
    """Is notified of what becomes of the events of one work queue. Must not block or raise."""

    def received(self, age_s: float) -> None:
        """An event was delivered: so long after its change, or after it was published if it is no change."""
        ...

    def handled(self, events: int, *, stale: int, took_s: float) -> None:
        """*events* were handled together, within *took_s*. Later ones had come before *stale* of them."""
        ...

    def failed(self, error: Exception) -> None:
        """Events that were handled together failed by *error*, or one cannot be read."""
        ...

    def retried(self, events: int) -> None:
        """*events* failed, or were postponed, and will be delivered again."""
        ...

    def parked(self, events: int) -> None:
        """*events* were moved to the dead-letter queue."""
        ...


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """
    Messages in a queue: `ready` to be delivered, and `unacknowledged` by the consumer of this process.

    `unacknowledged` is None without such a consumer: a broker reports no total over all consumers.
    """

    ready: int
    unacknowledged: int | None = None


class Unobserved:
    """A `DeliveryObserver` that ignores everything."""

    def received(self, age_s: float) -> None:
        """Do nothing."""

    def handled(self, events: int, *, stale: int, took_s: float) -> None:
        """Do nothing."""

    def failed(self, error: Exception) -> None:
        """Do nothing."""

    def retried(self, events: int) -> None:
        """Do nothing."""

    def parked(self, events: int) -> None:
        """Do nothing."""


_UNOBSERVED = Unobserved()


class EventBus(Protocol):
    """
    Carries events to one consumer of a work queue, and changes to every gateway (fan-out).

    Delivery is at least once and in any order; handlers compare versions. The bus connects and
    reconnects by itself.
    """

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """
        Put *events* into their work queues; return, aligned, which the broker confirmed.

        True means durable: the event reaches a consumer even if everything restarts (the
        in-process bus lives only as long as its process). False means that it may or may not
        arrive. Never raises, and never takes longer than 2 s.
        """
        ...

    async def announce(self, changes: Sequence[LinkChanged]) -> None:
        """Send *changes* to every listening gateway, best effort. Raises Unavailable."""
        ...

    async def listen(self, listener: InvalidationListener) -> None:
        """Start calling *listener*; `on_gap` is called at the start and after every reconnect."""
        ...

    async def consume(
        self, queue: WorkQueue, handler: EventHandler, observer: DeliveryObserver = _UNOBSERVED
    ) -> None:
        """
        Start feeding *handler* batches of at most 200 events of *queue*; one handler per queue.

        A batch is acknowledged when the handler returns. `Unavailable` from the handler pauses
        consumption and repeats the batch until it succeeds. After any other exception each of its
        events is retried alone, with growing delays; after `MAX_ATTEMPTS` it is moved to the
        dead-letter queue. Bytes that are no event go there at once, and have `failed`. *observer* is notified
        of all but `handled`, and the failures of the handler itself.
        """
        ...

    async def ping(self) -> None:
        """Return if the bus can publish, and every consumer it has is receiving. Raises Unavailable."""
        ...

    async def queue_depths(self) -> Mapping[str, QueueDepth]:
        """
        Return the depth of each queue, those of retries and dead letters included.

        Missing queues are left out. Raises Unavailable.
        """
        ...

    async def aclose(self) -> None:
        """Stop consuming (the current batch is finished), then disconnect."""
        ...
