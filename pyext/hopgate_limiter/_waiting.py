"""Waiting for a reserved slot. The slots are given out by the engine; only the sleeping is done here."""

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hopgate_limiter import Decision, Key, Limiter, Reservation, Seconds


LONGEST_SLEEP_S = 3600.0  # far below what the system refuses to sleep for at once


class RateLimitExceeded(Exception):
    """No slot within the time the caller would wait; `decision` tells when there will be one."""

    def __init__(self, decision: "Decision") -> None:
        super().__init__(f"refused by the rate '{decision.policy}', retry after {decision.retry_after} s")
        self.decision = decision


def _pause(reservation: "Reservation") -> float:
    # A manual clock does not move while we sleep: let others run and look again.
    if not reservation._is_real_time:  # noqa: SLF001
        return 0.0
    return min(reservation.delay, LONGEST_SLEEP_S)


def wait(reservation: "Reservation") -> None:
    try:
        # Sleep may end early, and only the engine's clock says when the slot has come.
        while reservation.delay > 0.0:
            time.sleep(_pause(reservation))
    except BaseException:
        reservation.cancel()
        raise


async def wait_async(reservation: "Reservation") -> "Reservation":
    try:
        while reservation.delay > 0.0:  # noqa: ASYNC110 -- a clock cannot set an event
            await asyncio.sleep(_pause(reservation))
    except BaseException:
        reservation.cancel()
        raise
    return reservation


async def leave_async() -> None:
    """Leave `async with`: the slot has been used."""


async def acquire_async(limiter: "Limiter", key: "Key", cost: int, max_wait: "Seconds | None") -> "Decision":
    # Reserved when first awaited, so that a task cancelled before it starts holds nothing.
    decision, reservation = limiter._reserve(key, cost, max_wait)  # noqa: SLF001
    if reservation is not None:
        await wait_async(reservation)
    return decision
