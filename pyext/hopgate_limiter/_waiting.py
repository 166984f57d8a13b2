"""
Waiting: for a reserved slot, for Redis to decide, for a refusal to be over.

The engine says what is decided and when; only the sleeping is done here.
"""

import asyncio
import collections
import itertools
import os
import time
import weakref
from math import inf
from typing import TYPE_CHECKING

from hopgate_limiter._native import _Mailbox

if TYPE_CHECKING:
    from hopgate_limiter import Decision, Key, Limiter, Reservation, Seconds


LONGEST_SLEEP_S = 3600.0  # far below what the system refuses to sleep for at once
# A shared limit can be looked at again, but not so often that looking is all one does.
SHORTEST_SLEEP_S = 0.001


class RateLimitExceeded(Exception):
    """No slot within the time the caller would wait; `decision` tells when there will be one."""

    def __init__(self, decision: "Decision") -> None:
        super().__init__(f"refused by the rate '{decision.policy}', retry after {decision.retry_after} s")
        self.decision = decision


# --- a reserved slot --------------------------------------------------------------------


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


# --- a decision of Redis ----------------------------------------------------------------


class _Post:
    """
    Where decisions for one event loop come in, of limiters with the same patience.

    The thread that talks to Redis puts them into the mailbox and writes a byte to a pipe; the loop reads
    it and wakes the tasks. So that thread never waits for the interpreter. Who has waited too long is
    decided about without it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self.tickets = itertools.count()
        self.waiting: dict[int, asyncio.Future[Decision]] = {}
        self._patience = patience
        # Until when, who, and whom to ask then; earliest first. Most have been answered by that time.
        self._overdue: collections.deque[tuple[float, int, Limiter, Key, int]] = collections.deque()
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        self.mailbox = _Mailbox(writer)
        loop.add_reader(self._reader, self._open)
        weakref.finalize(loop, _close, self.mailbox, self._reader, writer)

    async def wait(self, ticket: int, limiter: "Limiter", key: "Key", cost: int) -> "Decision":
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        if not self._overdue:
            loop.call_at(until, self._decide, loop)
        self._overdue.append((until, ticket, limiter, key, cost))
        # The answer may be in the mailbox already, but nobody opens it before this task lets go.
        future = self.waiting[ticket] = loop.create_future()
        try:
            return await future
        finally:
            self.waiting.pop(ticket, None)

    def _decide(self, loop: asyncio.AbstractEventLoop) -> None:
        """Decide about all who have waited long enough, without Redis."""
        now = loop.time()
        while self._overdue and self._overdue[0][0] <= now:
            _, ticket, limiter, key, cost = self._overdue.popleft()
            future = self.waiting.pop(ticket, None)
            if future is not None and not future.done():
                future.set_result(limiter._decide_alone(key, cost))  # noqa: SLF001
        if self._overdue:
            loop.call_at(self._overdue[0][0], self._decide, loop)

    def _open(self) -> None:
        os.read(self._reader, 4096)
        for ticket, decision in self.mailbox.take_all():
            future = self.waiting.pop(ticket, None)
            if future is not None and not future.done():
                future.set_result(decision)


def _close(mailbox: _Mailbox, *fds: int) -> None:
    mailbox.close()
    for fd in fds:
        os.close(fd)


_POSTS: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, _Post]]"
_POSTS = weakref.WeakKeyDictionary()


def _post_of(loop: asyncio.AbstractEventLoop, patience: float) -> _Post:
    posts = _POSTS.get(loop)
    if posts is None:
        posts = _POSTS[loop] = {}
    post = posts.get(patience)
    if post is None:
        post = posts[patience] = _Post(loop, patience)
    return post


async def hit_async(limiter: "Limiter", key: "Key", cost: int) -> "Decision":
    post = _post_of(asyncio.get_running_loop(), limiter._patience)  # noqa: SLF001
    ticket = next(post.tickets)
    decision = limiter._submit(key, cost, post.mailbox, ticket)  # noqa: SLF001
    if decision is not None:
        return decision
    return await post.wait(ticket, limiter, key, cost)


# --- a refusal by a shared limit --------------------------------------------------------


def _look_again_after(decision: "Decision", left: float) -> float | None:
    """Return how long to sleep before asking again; None if *decision* is the last word."""
    wait = decision.retry_after
    if decision or wait == inf or wait > left:
        return None
    return min(max(wait, SHORTEST_SLEEP_S), LONGEST_SLEEP_S)


def acquire_shared(limiter: "Limiter", key: "Key", cost: int, max_wait: "Seconds | None") -> "Decision":
    until = time.monotonic() + (inf if max_wait is None else max_wait)
    while True:
        decision = limiter.hit(key, cost)
        pause = _look_again_after(decision, until - time.monotonic())
        if pause is None:
            return decision
        time.sleep(pause)


async def acquire_shared_async(
    limiter: "Limiter", key: "Key", cost: int, max_wait: "Seconds | None"
) -> "Decision":
    until = time.monotonic() + (inf if max_wait is None else max_wait)
    while True:
        decision = await hit_async(limiter, key, cost)
        pause = _look_again_after(decision, until - time.monotonic())
        if pause is None:
            return decision
        await asyncio.sleep(pause)
