"""What becomes of events in a worker, and how old changes are when a gateway receives them."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.events import LinkChanged, WorkQueue
from app.telemetry.errors import ErrorCounts
from app.telemetry.families import CHANGE_VISIBLE, EVENT_AGE, EVENT_PROCESSING, EVENTS
from app.telemetry.samples import Durations, Samples


class DeliveryCounts:
    """
    An `app.ports.DeliveryObserver` of one queue.

    Args:
        errors: counts the failures of all queues.
    """

    def __init__(self, queue: WorkQueue, errors: ErrorCounts) -> None:
        self._queue = queue
        self._errors = errors
        self._applied = self._stale = self._retried = self._parked = 0
        self._processing = Durations(EVENT_PROCESSING.bounds)
        self._ages = Durations(EVENT_AGE.bounds)

    def received(self, age_s: float) -> None:
        """Count the age of a delivery."""
        self._ages.observe(age_s)

    def handled(self, events: int, *, stale: int, took_s: float) -> None:
        """Count events, and the time of each."""
        self._applied += events - stale
        self._stale += stale
        self._processing.observe(took_s, events)

    def failed(self, error: Exception) -> None:
        """Count the error."""
        self._errors.add(error)

    def retried(self, events: int) -> None:
        """Count events that come again."""
        self._retried += events

    def parked(self, events: int) -> None:
        """Count events that do not."""
        self._parked += events

    def samples(self) -> Samples:
        """Report the queue since the start."""
        queue = self._queue.value
        return {
            EVENTS.of(queue, "applied"): [self._applied],
            EVENTS.of(queue, "stale"): [self._stale],
            EVENTS.of(queue, "retried"): [self._retried],
            EVENTS.of(queue, "parked"): [self._parked],
            EVENT_PROCESSING.of(queue): list(self._processing.values),
            EVENT_AGE.of(queue): list(self._ages.values),
        }


class ChangeAges:
    """
    Measures how long after its commit each change of another process arrives.

    Args:
        wall: unix seconds. The clocks of two machines may differ: no age is below 0.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._ages = Durations(CHANGE_VISIBLE.bounds)

    def note(self, change: LinkChanged) -> None:
        """Measure *change*, which is new to this process."""
        if change.committed_at is not None:
            self._ages.observe(max(0.0, self._wall() - change.committed_at))

    def samples(self) -> Samples:
        """Report the ages since the start."""
        return {CHANGE_VISIBLE.of(): list(self._ages.values)}
