"""Retries: backoff with jitter, and a budget."""

from __future__ import annotations

from collections.abc import Callable

from app.resilience.window import Window

_CALL, _RETRY = range(2)


def full_jitter_s(attempt: int, *, base_s: float, cap_s: float, random: Callable[[], float]) -> float:
    """
    Return the seconds to wait after failed *attempt* (from 0): random up to a limit that doubles.

    Args:
        random: gives floats in [0, 1).
    """
    return random() * min(cap_s, base_s * float(1 << min(attempt, 62)))


class RetryBudget:
    """
    Allows retries as a share of the calls of the last *window_s*, and *min_per_s* in any case.

    Without it, an outage that fails every call would double the load on the dependency.
    """

    def __init__(self, *, ratio: float = 0.2, min_per_s: float = 2.0, window_s: int = 10) -> None:
        self._ratio = ratio
        self._free = min_per_s * window_s
        self._window = Window(2, buckets=window_s)

    def note_call(self, now: float) -> None:
        """Count a first attempt."""
        self._window.add(now, _CALL)

    def take(self, now: float) -> bool:
        """Return whether one call may be retried, and count the retry."""
        calls, retries = self._window.totals(now)
        if retries + 1 > self._free + calls * self._ratio:
            return False
        self._window.add(now, _RETRY)
        return True
