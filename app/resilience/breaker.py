"""
A circuit breaker: stops calls to a dependency that mostly fails, or is mostly slow.

Each process has its own, in memory: sharing the state would need another dependency.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from app.resilience.window import Window

_CALL, _FAILURE, _SLOW = range(3)
# Fewer failures in a row do not count as silence, however long they took.
_SILENT_CALLS = 5


class BreakerState(StrEnum):
    """Closed admits every call, open none, half-open a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """The breaker went from `before` to `after`; `reason` has the counts."""

    before: BreakerState
    after: BreakerState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """
    When to open, and for how long.

    A failed or slow call opens the breaker

    - if `window_s` holds at least `min_calls`, of which `failure_ratio` failed, or `slow_ratio` took
      `slow_s` or longer;
    - if every call has failed for `silent_s`. After a busy window the ratio alone would take half of
      another window to notice an outage.

    It stays open for `open_s` ± `jitter`, doubled up to `longest_open_s` until it has stayed closed
    for a window. Then it is half-open and admits `probes` at a time: as many successes close it, one
    failed or slow probe opens it again.
    """

    min_calls: int = 10
    window_s: int = 10
    failure_ratio: float = 0.5
    slow_ratio: float = 0.8
    slow_s: float = math.inf
    silent_s: float = math.inf
    open_s: float = 0.5
    longest_open_s: float = 2.0
    jitter: float = 0.2
    probes: int = 3


def _ignore(_change: BreakerChange) -> None:
    """Report nothing."""


class Breaker:
    """
    A state machine without a clock: every call takes the monotonic time in seconds.

    A permit is the generation of the state that issued it. A call that was admitted by an earlier
    state changes nothing.

    Args:
        random: gives floats in [0, 1), for the jitter.
        on_change: called with every change of the state.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        random: Callable[[], float],
        on_change: Callable[[BreakerChange], None] = _ignore,
    ) -> None:
        self._policy = policy
        self._random = random
        self._on_change = on_change
        self._window = Window(3, buckets=policy.window_s)
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._until = 0.0  # when an open breaker becomes half-open
        self._opened_at = 0.0  # when it was closed last
        self._closed_at = -math.inf
        self._openings = 0  # in a row
        self._probing = 0
        self._proven = 0
        self._failing = 0  # in a row
        self._failing_since = 0.0
        self.opened_total = 0
        # How often each state was entered; it was never entered at the start.
        self.entered: dict[BreakerState, int] = dict.fromkeys(BreakerState, 0)

    def admit(self, now: float) -> int | None:
        """Return a permit, for `settle` or `withdraw`; None if the call must not be made."""
        if self._state is BreakerState.CLOSED:
            return self._generation
        if self._state is BreakerState.OPEN:
            if now < self._until:
                return None
            self._enter(BreakerState.HALF_OPEN, f"probing {now - self._opened_at:.1f} s after it opened")
        if self._probing >= self._policy.probes:
            return None
        self._probing += 1
        return self._generation

    def settle(self, permit: int, now: float, *, took_s: float, failed: bool) -> None:
        """Record the outcome of the call that *permit* admitted: it ended at *now* after *took_s*."""
        if permit != self._generation:
            return
        is_slow = took_s >= self._policy.slow_s
        if self._state is BreakerState.HALF_OPEN:
            self._settle_probe(now, failed=failed, is_slow=is_slow)
            return
        self._window.add(now, _CALL)
        if is_slow:
            self._window.add(now, _SLOW)
        if failed:
            self._window.add(now, _FAILURE)
            if self._failing == 0:
                self._failing_since = now
            self._failing += 1
        else:
            self._failing = 0
        # Only a failed or slow call opens the breaker. A good call may be the one that completes
        # `min_calls`: then the dependency has just come back from an outage that few calls met.
        if failed or is_slow:
            reason = self._reason_to_open(now)
            if reason is not None:
                self._open(now, reason)

    def withdraw(self, permit: int) -> None:
        """Return *permit* without an outcome: the call was cancelled, for example."""
        if permit == self._generation and self._state is BreakerState.HALF_OPEN:
            self._probing -= 1

    def state(self, now: float) -> BreakerState:
        """Return the state; an open breaker that would admit a probe at *now* counts as half-open."""
        if self._state is BreakerState.OPEN and now >= self._until:
            return BreakerState.HALF_OPEN
        return self._state

    @property
    def is_failing(self) -> bool:
        """Whether the breaker is closed although the last settled call failed."""
        return self._failing > 0

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return the calls of the window: how many were made, failed and were slow."""
        calls, failures, slow = self._window.totals(now)
        return calls, failures, slow

    def _settle_probe(self, now: float, *, failed: bool, is_slow: bool) -> None:
        self._probing -= 1
        if failed or is_slow:
            outcome = "failed" if failed else f"took {self._policy.slow_s:g} s or longer"
            self._open(now, f"a probe {outcome}")
            return
        self._proven += 1
        if self._proven >= self._policy.probes:
            self._closed_at = now
            reason = f"{self._proven} probes succeeded, {now - self._opened_at:.1f} s after it opened"
            self._enter(BreakerState.CLOSED, reason)

    def _reason_to_open(self, now: float) -> str | None:
        failing_s = now - self._failing_since
        if self._failing >= _SILENT_CALLS and failing_s >= self._policy.silent_s:
            return f"{self._failing} calls in a row failed within {failing_s:.2f} s"
        calls, failures, slow = self._window.totals(now)
        if calls < self._policy.min_calls:
            return None
        if failures >= calls * self._policy.failure_ratio:
            return f"{failures} of {calls} calls failed"
        if slow >= calls * self._policy.slow_ratio:
            return f"{slow} of {calls} calls took {self._policy.slow_s:g} s or longer"
        return None

    def _open(self, now: float, reason: str) -> None:
        if self._state is BreakerState.CLOSED:
            self._opened_at = now
            # A breaker that opens again soon continues the doubling: the dependency is flapping.
            if now - self._closed_at >= self._policy.window_s:
                self._openings = 0
        wait_s = min(self._policy.longest_open_s, self._policy.open_s * 2**self._openings)
        # Jittered, so that the probes of many processes do not arrive together.
        self._until = now + wait_s * (1 + self._policy.jitter * (2 * self._random() - 1))
        self._openings = min(self._openings + 1, 16)
        self.opened_total += 1
        self._enter(BreakerState.OPEN, reason)

    def _enter(self, state: BreakerState, reason: str) -> None:
        change = BreakerChange(self._state, state, reason)
        self._state = state
        self.entered[state] += 1
        self._generation += 1
        self._probing = self._proven = 0
        self._failing = 0
        self._window.clear()
        self._on_change(change)
