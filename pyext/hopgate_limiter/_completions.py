"""Decisions of Redis, on their way from the thread that talks to it to an event loop."""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hopgate_limiter._native import _CompletionQueue

if TYPE_CHECKING:
    from hopgate_limiter import Decision, Key, Limiter, Rates


@dataclasses.dataclass(slots=True)
class _Call:
    id: int
    limiter: "Limiter"
    decide_fallback: "Callable[[], Decision]"
    since: float
    """On the clock of the loop, s."""


class _Completions:
    """
    The decisions of Redis on their way to one event loop, for limiters with the same reply timeout.

    The thread that talks to Redis puts a decision into the queue and writes a byte to a pipe; the loop reads
    it and completes the future. So that thread never waits for the interpreter. A call without a decision
    in time is decided without Redis.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reply_timeout: float) -> None:
        self.call_ids = itertools.count()
        self.waiting: dict[int, asyncio.Future[Decision]] = {}
        self._reply_timeout = reply_timeout
        # Each call's deadline and id, earliest first. Most are complete by then.
        self._deadlines: collections.deque[tuple[float, _Call]] = collections.deque()
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        self.queue = _CompletionQueue(writer)
        loop.add_reader(self._reader, self._collect)
        weakref.finalize(loop, _close, self.queue, self._reader, writer)

    async def wait(
        self, call_id: int, limiter: "Limiter", decide_fallback: "Callable[[], Decision]"
    ) -> "Decision":
        """Wait for the decision of a call; without one in time *decide_fallback* makes it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._await_until(now + self._reply_timeout, _Call(call_id, limiter, decide_fallback, now), loop)
        # The decision may be in the queue already, but the loop collects it only after this task yields.
        future: asyncio.Future[Decision] = loop.create_future()
        self.waiting[call_id] = future
        try:
            return await future
        finally:
            self.waiting.pop(call_id, None)

    def _await_until(self, until: float, call: "_Call", loop: asyncio.AbstractEventLoop) -> None:
        if not self._deadlines:
            loop.call_at(until, self._decide_overdue, loop)
        self._deadlines.append((until, call))

    def _decide_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Decide all calls past their deadline, without Redis, unless it is busy with calls before them."""
        self._collect()
        now = loop.time()
        overdue = []
        while self._deadlines and self._deadlines[0][0] <= now:
            overdue.append(self._deadlines.popleft()[1])
        if self._deadlines:
            loop.call_at(self._deadlines[0][0], self._decide_overdue, loop)
        for call in overdue:
            future = self.waiting.get(call.id)
            if future is None or future.done():
                continue
            if call.limiter._is_replying(now - call.since):  # noqa: SLF001
                self._await_until(now + self._reply_timeout, call, loop)
                continue
            del self.waiting[call.id]
            future.set_result(call.decide_fallback())

    def _collect(self) -> None:
        with contextlib.suppress(BlockingIOError):  # nothing has come since
            os.read(self._reader, 4096)
        for call_id, decision in self.queue.take_all():
            future = self.waiting.pop(call_id, None)
            if future is not None and not future.done():
                future.set_result(decision)


def _close(queue: _CompletionQueue, *fds: int) -> None:
    queue.close()
    for fd in fds:
        os.close(fd)


_COMPLETIONS: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, _Completions]]"
_COMPLETIONS = weakref.WeakKeyDictionary()


def _completions_of(loop: asyncio.AbstractEventLoop, reply_timeout: float) -> _Completions:
    by_timeout = _COMPLETIONS.get(loop)
    if by_timeout is None:
        by_timeout = _COMPLETIONS[loop] = {}
    completions = by_timeout.get(reply_timeout)
    if completions is None:
        completions = by_timeout[reply_timeout] = _Completions(loop, reply_timeout)
    return completions


async def try_hit_async(limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None") -> "Decision":
    completions = _completions_of(asyncio.get_running_loop(), limiter._reply_timeout)  # noqa: SLF001
    call_id = next(completions.call_ids)
    decision = limiter._submit(key, cost, completions.queue, call_id, rates)  # noqa: SLF001
    if decision is not None:
        return decision
    decide = partial(limiter._decide_fallback, key, cost)  # noqa: SLF001
    return await completions.wait(call_id, limiter, decide)


async def peek_async(limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None") -> "Decision":
    completions = _completions_of(asyncio.get_running_loop(), limiter._reply_timeout)  # noqa: SLF001
    call_id = next(completions.call_ids)
    decision = limiter._submit_peek(key, cost, completions.queue, call_id, rates)  # noqa: SLF001
    if decision is None:
        decide = partial(limiter._peek_fallback, key, cost)  # noqa: SLF001
        decision = await completions.wait(call_id, limiter, decide)
    return decision


async def refund_async(limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None") -> None:
    completions = _completions_of(asyncio.get_running_loop(), limiter._reply_timeout)  # noqa: SLF001
    call_id = next(completions.call_ids)
    if limiter._submit_refund(key, cost, completions.queue, call_id, rates) is None:  # noqa: SLF001
        # Without a reply the look at the key is no confirmation either: its source is not Redis.
        look = partial(limiter._peek_fallback, key, cost)  # noqa: SLF001
        outcome = await completions.wait(call_id, limiter, look)
        if not outcome or outcome.source != "redis":
            raise ConnectionError(f"{cost} units are not given back, or Redis did not confirm it in time")


async def hit_async(limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None") -> "Decision":
    decision = await try_hit_async(limiter, key, cost, rates)
    limiter._report(key, decision)  # noqa: SLF001
    return decision
