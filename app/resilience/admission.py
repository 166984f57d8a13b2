"""
Admission control: how much work a process takes on at once, and which work it sheds first.

Two signals are watched:

- The latency of admitted work, by kind. When it is both well above its usual value and long enough
  to be noticed, the limit on concurrent work falls. This is the gradient limit of Netflix's
  concurrency-limits, with a floor below which latency is ignored.
- The lag of the event loop. All queued work waits at least that long.

A state machine without I/O: `app.concurrency.loop_lag` measures the lag and calls `tick`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from app.domain.errors import Overloaded

TICK_S = 0.02

MIN_LIMIT, USUAL_LIMIT, MAX_LIMIT = 16.0, 256.0, 1024.0
# The loop counts as late when every one of the last ticks was late: a single long pause does not.
LATE_TICKS = 8
# Latency up to this many times the usual one still counts as usual.
_TOLERANCE = 2.0
_SMOOTHING = 0.2
# A window with fewer samples is extended.
_MIN_SAMPLES = 10


class WorkKind(IntEnum):
    """Kinds of work; the last is shed first. Redirects from the L1 cache bypass admission control."""

    LOOK_UP = 0
    WRITE = 1
    LIST = 2


@dataclass(frozen=True, slots=True)
class _Rule:
    share: float  # of the limit; the rest is reserved for the kinds before this one
    lag_s: float  # event-loop lag from which this kind is shed
    unnoticed_s: float  # latency that never counts as slow


_RULES = {
    WorkKind.LOOK_UP: _Rule(1.0, 0.2, 0.01),
    WorkKind.WRITE: _Rule(0.75, 0.1, 0.015),
    WorkKind.LIST: _Rule(0.5, 0.05, 0.2),
}


class _Latency:
    """The latency of one kind of work: the usual one, and the mean of the present window."""

    def __init__(self, unnoticed_s: float) -> None:
        self._unnoticed_s = unnoticed_s
        self._usual_s: float | None = None
        self.count = 0
        self._sum_s = 0.0

    def add(self, count: int, sum_s: float) -> None:
        self.count += count
        self._sum_s += sum_s

    def close(self, *, pressed: bool) -> float:
        """End the window; return its gradient, from 1 (as usual) down to 0.5 (twice too slow or worse)."""
        if self.count == 0:
            return 1.0
        mean_s = self._sum_s / self.count
        self.count, self._sum_s = 0, 0.0
        if self._usual_s is None:
            self._usual_s = mean_s
        # Overload must not become usual, but a dependency that is slower for good must.
        weight = 0.1 if mean_s < self._usual_s else 0.00005 if pressed else 0.01
        gradient = max(_TOLERANCE * self._usual_s, self._unnoticed_s) / max(mean_s, 1e-9)
        self._usual_s += weight * (mean_s - self._usual_s)
        return min(1.0, max(0.5, gradient))


class AdmissionController:
    """
    Admits work or refuses it at once. Belongs to one event loop.

        entered = admission.enter(WorkKind.WRITE)  # raises Overloaded
        ...
        admission.leave(WorkKind.WRITE, entered, succeeded=True)

    `refused` counts refusals by kind since the start.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.limit = USUAL_LIMIT
        self.in_flight = 0
        self.lag_s = 0.0
        self.refused = dict.fromkeys(WorkKind, 0)
        self._lags = deque([0.0] * LATE_TICKS, maxlen=LATE_TICKS)
        self._latencies = {kind: _Latency(rule.unnoticed_s) for kind, rule in _RULES.items()}
        self._peak = 0
        self._pressed = False

    def refuses(self, kind: WorkKind) -> bool:
        """Return whether `enter` would raise, and count the refusal: the request is then not even read."""
        rule = _RULES[kind]
        if self.in_flight < rule.share * self.limit and self.lag_s < rule.lag_s:
            return False
        self._note_refused(kind, 1)
        return True

    def enter(self, kind: WorkKind) -> float:
        """
        Begin one piece of work; pass the returned time to `leave`, exactly once.

        Raises:
            Overloaded: the work is refused.
        """
        if self.refuses(kind):
            raise Overloaded
        self._begin(1)
        return self._monotonic()

    def enter_many(self, kind: WorkKind, count: int) -> tuple[int, float]:
        """Begin as many of *count* pieces of work as `enter` would; return that number, and the time."""
        rule = _RULES[kind]
        room = math.ceil(rule.share * self.limit - self.in_flight) if self.lag_s < rule.lag_s else 0
        admitted = min(count, max(0, room))
        if admitted < count:
            self._note_refused(kind, count - admitted)
        self._begin(admitted)
        return admitted, self._monotonic()

    def leave(self, kind: WorkKind, entered: float, *, succeeded: bool) -> None:
        """End one piece of work. The latency of failures is ignored: they may fail fast."""
        self.leave_many(kind, [entered], succeeded=succeeded)

    def leave_many(self, kind: WorkKind, entered: Sequence[float], *, succeeded: bool) -> None:
        """End the pieces of work that were *entered* then."""
        count = len(entered)
        self.in_flight -= count
        if succeeded and count:
            self._latencies[kind].add(count, count * self._monotonic() - sum(entered))

    def tick(self, lag_s: float) -> None:
        """Adapt the limit, every `TICK_S`; *lag_s* is how late the event loop ran this call."""
        self._lags.append(lag_s)
        self.lag_s = min(self._lags)
        counts = {kind: latency.count for kind, latency in self._latencies.items()}
        samples = sum(counts.values())
        if samples < _MIN_SAMPLES:
            if self.in_flight == 0:
                self._relax()
            return
        gradient = sum(
            counts[kind] * latency.close(pressed=self._pressed) for kind, latency in self._latencies.items()
        )
        gradient /= samples
        if self._peak >= self.limit / 2:
            headroom = max(4.0, self.limit / 8) if gradient == 1 else 0.0
            limit = self.limit + _SMOOTHING * (self.limit * gradient + headroom - self.limit)
            self.limit = min(MAX_LIMIT, max(MIN_LIMIT, limit))
        elif gradient == 1:
            self._relax()
        self._peak, self._pressed = self.in_flight, False

    def _begin(self, count: int) -> None:
        self.in_flight += count
        self._peak = max(self._peak, self.in_flight)

    def _note_refused(self, kind: WorkKind, count: int) -> None:
        self.refused[kind] += count
        self._pressed = True

    def _relax(self) -> None:
        # Without pressure the limit drifts back to the usual one: it was learned under other load.
        self.limit += 0.05 * (USUAL_LIMIT - self.limit)
