"""
How much work a process takes on at once, and whom it turns away first.

Two things are watched. How long admitted work takes, for each kind of work: if that is both
slower than usual and slower than anybody should notice, fewer may be under way at once (the
gradient limit of Netflix's concurrency-limits, with a floor below which latency is no
trouble). And how late the event loop is: whatever waits for it waits that long.

A pure state machine: no clock, no I/O. Who holds it calls `tick` every `TICK_S`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum

TICK_S = 0.02

MIN_LIMIT, USUAL_LIMIT, MAX_LIMIT = 16.0, 256.0, 1024.0
# The loop is late if it was at each of the last ticks: one long pause is none.
LATE_TICKS = 8
# This many times the usual latency is still usual.
_TOLERANCE = 2.0
_SMOOTHING = 0.2
# A window with fewer samples waits for more.
_MIN_SAMPLES = 10


class Kind(IntEnum):
    """Work by who survives longest. Redirects from the first cache are never asked about."""

    LOOK_UP = 0
    WRITE = 1
    LIST = 2


@dataclass(frozen=True, slots=True)
class _Rule:
    share: float  # of the limit: above it, what is left is for the kinds that survive longer
    lag_s: float  # how late the loop may be
    unnoticed_s: float  # latency that is never called slow


_RULES = {
    Kind.LOOK_UP: _Rule(1.0, 0.2, 0.01),
    Kind.WRITE: _Rule(0.75, 0.1, 0.015),
    Kind.LIST: _Rule(0.5, 0.05, 0.2),
}


class _Latency:
    """What is usual for one kind of work, and what is now."""

    def __init__(self, unnoticed_s: float) -> None:
        self._unnoticed_s = unnoticed_s
        self._usual_s: float | None = None
        self.count = 0
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self._sum_s += seconds

    def close(self, *, pressed: bool) -> float:
        """End the window; return 1 if it was as usual, down to 0.5 the slower it was."""
        if self.count == 0:
            return 1.0
        mean_s = self._sum_s / self.count
        self.count, self._sum_s = 0, 0.0
        if self._usual_s is None:
            self._usual_s = mean_s
        # Overload must not become usual, yet a dependency that is slower for good must.
        weight = 0.1 if mean_s < self._usual_s else 0.00005 if pressed else 0.01
        gradient = max(_TOLERANCE * self._usual_s, self._unnoticed_s) / max(mean_s, 1e-9)
        self._usual_s += weight * (mean_s - self._usual_s)
        return min(1.0, max(0.5, gradient))


class Admission:
    """
    Admits work, or refuses it at once. Belongs to one event loop.

    `refused` counts by kind, for ever.
    """

    def __init__(self) -> None:
        self.limit = USUAL_LIMIT
        self.in_flight = 0
        self.lag_s = 0.0
        self.refused = dict.fromkeys(Kind, 0)
        self._lags = deque([0.0] * LATE_TICKS, maxlen=LATE_TICKS)
        self._latencies = {kind: _Latency(rule.unnoticed_s) for kind, rule in _RULES.items()}
        self._peak = 0
        self._pressed = False

    def refuses(self, kind: Kind) -> bool:
        """Is a piece of work that is only on its way refused already? It is counted then."""
        rule = _RULES[kind]
        if self.in_flight < rule.share * self.limit and self.lag_s < rule.lag_s:
            return False
        self.refused[kind] += 1
        self._pressed = True
        return True

    def enter(self, kind: Kind) -> bool:
        """May one piece of work begin? Then `leave` has to follow, once."""
        if self.refuses(kind):
            return False
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        return True

    def leave(self, kind: Kind, seconds: float | None) -> None:
        """One piece of work has ended, after *seconds*; None if how long it took says nothing."""
        self.in_flight -= 1
        if seconds is not None:
            self._latencies[kind].add(seconds)

    def tick(self, lag_s: float) -> None:
        """Adapt to what has been seen; *lag_s* is how late the event loop came to this call."""
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

    def _relax(self) -> None:
        # Nothing presses: a limit that is far from the usual one was right for another day.
        self.limit += 0.05 * (USUAL_LIMIT - self.limit)
