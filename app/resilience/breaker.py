"""
A circuit breaker: leaves a dependency alone that mostly fails, or mostly dawdles.

Per process and in memory: sharing it through a service that may be away would be circular.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from app.resilience.window import Window

_CALL, _FAILURE, _SLOW = range(3)
# Fewer failures in a row are no silence, however long they took to come.
_SILENT_CALLS = 5


class State(StrEnum):
    """Closed lets everything through, open nothing, half-open a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """
    When to open, and for how long.

    A failed or slow call opens it once `min_calls` were made within `window_s` and at least
    `failure_ratio` of them failed or `slow_ratio` took `slow_s` or longer; or at once when for
    `silent_s`, and for some calls, nothing but failures was seen: after a busy window it would take
    half of another to notice. It stays open for `open_s`, doubling up to `longest_open_s` while it
    does not stay closed for a window, ± `jitter`. Then `probes` calls at a time may try; as many
    successes close it, one failed or slow one opens it again.
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


class Breaker:
    """
    A state machine without a clock: every call takes the monotonic time.

    A permit is the number of the state that gave it (its generation): what is heard of a call
    that an earlier state admitted changes nothing.
    """

    def __init__(self, policy: BreakerPolicy, *, random: Callable[[], float]) -> None:
        """Take a *policy*, and *random* floats in [0, 1) for the jitter."""
        self._policy = policy
        self._random = random
        self._window = Window(3, buckets=policy.window_s)
        self._state = State.CLOSED
        self._forced: State | None = None
        self._generation = 0
        self._until = 0.0  # open until then
        self._closed_at = -math.inf
        self._openings = 0  # in a row
        self._probing = 0
        self._proven = 0
        self._failing = 0  # in a row
        self._failing_since = 0.0
        self.opened_total = 0

    def admit(self, now: float) -> int | None:
        """Return a permit, to be handed to `settle` or `withdraw`; None if the call must not be made."""
        if self._state is State.CLOSED:
            return self._generation
        if self._forced is not None:
            return None
        if self._state is State.OPEN:
            if now < self._until:
                return None
            self._enter(State.HALF_OPEN)
        if self._probing >= self._policy.probes:
            return None
        self._probing += 1
        return self._generation

    def settle(self, permit: int, now: float, *, took_s: float, failed: bool) -> bool:
        """
        Say how the call went that *permit* was for: it ended at *now* after *took_s*.

        Returns:
            Was it the one that opened the breaker?
        """
        if permit != self._generation:
            return False
        is_bad = failed or took_s >= self._policy.slow_s
        if self._state is State.HALF_OPEN:
            self._probing -= 1
            if is_bad:
                self._open(now)
                return True
            self._proven += 1
            if self._proven >= self._policy.probes:
                self._closed_at = now
                self._enter(State.CLOSED)
            return False
        self._window.add(now, _CALL)
        if is_bad:
            self._note(now, took_s, failed=failed)
        if not failed:
            self._failing = 0
        # A call that went well opens nothing, though it may be the one that makes them enough to
        # judge by: that is how a dependency comes back whose outage few have noticed.
        if is_bad and self._is_too_bad(now):
            self._open(now)
            return True
        return False

    def withdraw(self, permit: int) -> None:
        """Give *permit* back for a call that says nothing about the dependency, such as a cancelled one."""
        if permit == self._generation and self._state is State.HALF_OPEN:
            self._probing -= 1

    def force(self, state: State | None) -> None:
        """
        Hold it open or closed by hand; None lets it go, closed and with nothing remembered.

        Raises:
            ValueError: *state* is half-open, which is a passage.
        """
        if state is State.HALF_OPEN:
            raise ValueError("a breaker cannot be held half-open")
        self._forced = state
        self._openings = 0
        self._enter(state or State.CLOSED)

    def state(self, now: float) -> State:
        """Return the state; an open one that would admit a probe at *now* counts as half-open."""
        if self._state is State.OPEN and self._forced is None and now >= self._until:
            return State.HALF_OPEN
        return self._state

    @property
    def is_failing(self) -> bool:
        """Is it closed, of itself, though the call that was heard of last failed?"""
        return self._failing > 0 and self._forced is None

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return how many calls the window holds, how many of them failed, and how many were slow."""
        calls, failures, slow = self._window.totals(now)
        return calls, failures, slow

    def _note(self, now: float, took_s: float, *, failed: bool) -> None:
        """Remember a call that went badly."""
        if took_s >= self._policy.slow_s:
            self._window.add(now, _SLOW)
        if failed:
            self._window.add(now, _FAILURE)
            if self._failing == 0:
                self._failing_since = now
            self._failing += 1

    def _is_too_bad(self, now: float) -> bool:
        if self._forced is not None:
            return False
        if self._failing >= _SILENT_CALLS and now - self._failing_since >= self._policy.silent_s:
            return True
        calls, failures, slow = self._window.totals(now)
        if calls < self._policy.min_calls:
            return False
        return failures >= calls * self._policy.failure_ratio or slow >= calls * self._policy.slow_ratio

    def _open(self, now: float) -> None:
        # One that opens soon after it closed goes on where it was: a dependency that flaps is
        # left alone longer and longer.
        if self._state is State.CLOSED and now - self._closed_at >= self._policy.window_s:
            self._openings = 0
        wait_s = min(self._policy.longest_open_s, self._policy.open_s * 2**self._openings)
        # Probes of many processes must not arrive together.
        self._until = now + wait_s * (1 + self._policy.jitter * (2 * self._random() - 1))
        self._openings = min(self._openings + 1, 16)
        self.opened_total += 1
        self._enter(State.OPEN)

    def _enter(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._probing = self._proven = 0
        self._failing = 0
        self._window.clear()
