"""
Waiting: for a reserved slot, for a refusal to end. `_completions` waits for decisions of Redis.

The engine decides, and computes every wait; this module only sleeps.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from math import fabs, inf
from typing import TYPE_CHECKING

from hopgate_limiter._completions import try_hit_async
from hopgate_limiter._native import Decision

if TYPE_CHECKING:
    from hopgate_limiter import Key, Limiter, Rates, Reservation, Seconds


# Shortest pause before a limit without a queue is tried again, and the shortest sleep by a clock that may
# stand still, so that a waiting caller does not spin.
SHORTEST_SLEEP_S = 0.001


class RateLimitExceeded(Exception):
    """No slot within the longest wait."""

    def __init__(self, decision: "Decision") -> None:
        if not isinstance(decision, Decision):
            raise TypeError(f"decision must be Decision, not {type(decision).__name__}")
        super().__init__(decision)
        self.decision = decision

    def __str__(self) -> str:
        decision = self.decision
        return f"refused by the rate '{decision.policy}', retry after {decision.retry_after} s"


class CostTooLargeError(RateLimitExceeded, ValueError):
    """The cost is above the most that can be admitted at once: it never fits, however long the wait."""

    def __str__(self) -> str:
        decision = self.decision
        return (
            f"cost must be at most what the rate '{decision.policy}' admits at once, got {decision.cost}: "
            f"retry after {decision.retry_after} s"
        )


def refused(decision: "Decision") -> RateLimitExceeded:
    """Return the exception for a call that gets no slot."""
    return CostTooLargeError(decision) if decision.retry_after == inf else RateLimitExceeded(decision)


_log = logging.getLogger("hopgate_limiter")


def log_health(prefix: str, reason: str | None, is_all: bool) -> None:  # noqa: FBT001
    """
    Log that limits under *prefix* have lost Redis, for *reason*, or have found it again (None).

    Without *is_all* the reason concerns one key, or a few.
    """
    if reason is None:
        _log.warning("limits under '%s' are shared through Redis again", prefix)
    elif is_all:
        _log.warning("limits under '%s' are decided without Redis: %s", prefix, reason)
    else:
        _log.warning("limits under '%s', some keys: %s", prefix, reason)


# --- a reserved slot --------------------------------------------------------------------


# By the id of the slot: what wakes its sleeper, from any thread.
_SLEEPERS: dict[int, Callable[[], None]] = {}
# The sleepers whose clock moves only by hand.
_BY_HAND: dict[int, Callable[[], None]] = {}


def wake(slot_id: int) -> None:
    """Wake the sleeper of a slot that now starts earlier."""
    waker = _SLEEPERS.get(slot_id)
    if waker is not None:
        waker()


def wake_all() -> None:
    """Wake all sleepers that wait for a manual clock: it has moved."""
    if _BY_HAND:
        for waker in list(_BY_HAND.values()):
            waker()


def _register(reservation: "Reservation", waker: Callable[[], None]) -> None:
    _SLEEPERS[reservation._id] = waker  # noqa: SLF001
    if reservation._longest_sleep is None:  # noqa: SLF001
        _BY_HAND[reservation._id] = waker  # noqa: SLF001


def _unregister(slot_id: int) -> None:
    _SLEEPERS.pop(slot_id, None)
    _BY_HAND.pop(slot_id, None)


def _length_of_sleep(waiting: "Reservation | Limiter", delay: float) -> float | None:
    longest = waiting._longest_sleep  # noqa: SLF001
    if longest is None:
        return None  # a manual clock does not move during a sleep: it wakes the sleeper
    if longest < 1.0:  # a clock of the caller's own, which may stand still
        delay = max(delay, SHORTEST_SLEEP_S)
    return min(delay, longest)


def wait(reservation: "Reservation") -> None:
    slot_id = reservation._id  # noqa: SLF001
    woken = threading.Event()
    try:
        reservation._wait_for()  # noqa: SLF001
        _register(reservation, woken.set)
        # A sleep may end early; the slot starts by the engine's clock.
        while (delay := reservation._left()) > 0.0:  # noqa: SLF001
            woken.wait(_length_of_sleep(reservation, delay))
            woken.clear()
        reservation._serve()  # noqa: SLF001
    except BaseException:
        reservation.cancel()
        raise
    finally:
        _unregister(slot_id)


def _end(sleep: "asyncio.Future[None]") -> None:
    if not sleep.done():
        sleep.set_result(None)


def _end_soon(loop: asyncio.AbstractEventLoop, sleep: "asyncio.Future[None]") -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks are gone
        loop.call_soon_threadsafe(_end, sleep)


async def wait_async(reservation: "Reservation") -> "Reservation":
    loop = asyncio.get_running_loop()
    slot_id = reservation._id  # noqa: SLF001
    try:
        reservation._wait_for()  # noqa: SLF001
        while True:
            sleep = loop.create_future()
            _register(reservation, partial(_end_soon, loop, sleep))
            delay = reservation._left()  # noqa: SLF001
            if delay <= 0.0:
                break
            await _sleep_until_woken(loop, sleep, _length_of_sleep(reservation, delay))
        reservation._serve()  # noqa: SLF001
    except BaseException:
        reservation.cancel()
        raise
    finally:
        _unregister(slot_id)
    return reservation


async def _sleep_until_woken(
    loop: asyncio.AbstractEventLoop, sleep: "asyncio.Future[None]", longest: float | None
) -> None:
    timer = None if longest is None else loop.call_later(longest, _end, sleep)
    try:
        await sleep
    finally:
        if timer is not None:
            timer.cancel()


async def leave_async() -> None:
    """Leave `async with`: the slot is used."""


async def acquire_local_async(
    limiter: "Limiter", key: "Key", cost: int, max_wait: "Seconds | None"
) -> "Decision":
    # Reserved when first awaited, so that a task cancelled before it starts holds nothing.
    decision, reservation = limiter._reserve(key, cost, max_wait)  # noqa: SLF001
    if decision.retry_after == inf:
        raise refused(decision)
    if reservation is not None:
        if reservation.delay > 0.0:
            await wait_async(reservation)
        else:
            reservation._serve()  # noqa: SLF001
    return decision


# --- limits without a queue: those that are shared, and rates given to one call ---------


def _retry_pause(decision: "Decision", left: float) -> float | None:
    """Return the sleep before the next try; None if *decision* is final."""
    wait = decision.retry_after
    if decision or wait > left or wait == inf:
        return None
    return max(wait, SHORTEST_SLEEP_S)


# Below 0: those of slots are above.
_UNQUEUED_IDS = itertools.count(-1, -1)


@contextlib.contextmanager
def _woken_by_hand(limiter: "Limiter", waker: Callable[[], None]) -> Iterator[None]:
    """Wake the caller whenever a manual clock is moved."""
    if limiter._longest_sleep is not None:  # noqa: SLF001
        yield
        return
    unqueued_id = next(_UNQUEUED_IDS)
    _BY_HAND[unqueued_id] = waker
    try:
        yield
    finally:
        _unregister(unqueued_id)


def _final(limiter: "Limiter", key: "Key", decision: "Decision") -> "Decision":
    """Report the last decision of a caller that tries again; raise if no other can follow."""
    limiter._report(key, decision)  # noqa: SLF001
    if decision.retry_after == inf:
        raise refused(decision)
    return decision


def _now(limiter: "Limiter") -> float:
    return limiter._now_ns / 1e9  # noqa: SLF001


def acquire_unqueued(
    limiter: "Limiter", key: "Key", cost: int, max_wait: "Seconds | None", rates: "Rates | None"
) -> "Decision":
    until = _now(limiter) + longest_wait("timeout", max_wait)
    woken = threading.Event()
    with _woken_by_hand(limiter, woken.set):
        while True:
            woken.clear()
            decision = limiter._try_hit(key, cost, rates)  # noqa: SLF001
            pause = _retry_pause(decision, until - _now(limiter))
            if pause is None:
                return _final(limiter, key, decision)
            woken.wait(_length_of_sleep(limiter, pause))


def longest_wait(argument: str, wait: "Seconds | None") -> float:
    if wait is None:
        return inf
    try:
        seconds = fabs(wait) if wait >= 0.0 else -1.0
    except TypeError:
        kind = type(wait).__name__
        raise TypeError(f"{argument} must be a number of seconds or None, not {kind}") from None
    except OverflowError:
        raise ValueError(
            f"{argument} must be a number of seconds or None, got an int beyond floats"
        ) from None
    if not seconds >= 0.0:
        raise ValueError(f"{argument} must be at least 0 s, got {wait}")
    return seconds


async def acquire_unqueued_async(
    limiter: "Limiter", key: "Key", cost: int, max_wait: "Seconds | None", rates: "Rates | None"
) -> "Decision":
    until = _now(limiter) + longest_wait("timeout", max_wait)
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def waker() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks are gone
            loop.call_soon_threadsafe(woken.set)

    with _woken_by_hand(limiter, waker):
        while True:
            woken.clear()
            decision = await try_hit_async(limiter, key, cost, rates)
            pause = _retry_pause(decision, until - _now(limiter))
            if pause is None:
                return _final(limiter, key, decision)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), _length_of_sleep(limiter, pause))
