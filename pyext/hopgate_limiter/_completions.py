"""Decisions of Redis, on their way from the thread that talks to it to an event loop."""

import asyncio
import contextlib
import itertools
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from hopgate_limiter._native import Decision, _CompletionQueue

if TYPE_CHECKING:
    from hopgate_limiter import Key, Limiter, Rates

    _Fallback = Callable[[Key, int], Decision]
    _Call = tuple[asyncio.Future[Decision], float, float, Limiter, _Fallback, Key, int]
    """Its future, its deadline and its start (s, on the clock of the loop), and how to decide it then."""


class _Completions:
    """
    The decisions of Redis on their way to one event loop, for limiters with the same reply timeout.

    The thread that talks to Redis puts a decision into the queue and writes a byte to a pipe; the loop reads
    it and completes the future. So that thread never waits for the interpreter. A call without a decision
    in time is decided without Redis.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reply_timeout: float) -> None:
        self.call_ids = itertools.count()
        self._reply_timeout = reply_timeout
        # By id. All wait equally long, so the first is the first to be overdue.
        self._waiting: dict[int, _Call] = {}
        self._is_timed = False
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        self.queue = _CompletionQueue(writer)
        loop.add_reader(self._reader, self._collect)
        weakref.finalize(loop, _close, self.queue, self._reader, writer)

    def expect(
        self, call_id: int, limiter: "Limiter", decide: "_Fallback", key: "Key", cost: int
    ) -> "asyncio.Future[Decision]":
        """Return the decision of a call to come; without one in time *decide* makes it."""
        loop = asyncio.get_running_loop()
        # The decision may be in the queue already, but the loop collects it only after this task yields.
        future: asyncio.Future[Decision] = loop.create_future()
        now = loop.time()
        until = now + self._reply_timeout
        self._waiting[call_id] = (future, until, now, limiter, decide, key, cost)
        if not self._is_timed:
            self._is_timed = True
            loop.call_at(until, self._decide_overdue, loop)
        return future

    def _decide_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Decide all calls past their deadline, without Redis, unless it is busy with calls before them."""
        self._collect()
        now = loop.time()
        overdue = list(itertools.takewhile(lambda item: item[1][1] <= now, self._waiting.items()))
        for call_id, (future, _, since, limiter, decide, key, cost) in overdue:
            del self._waiting[call_id]
            if future.done():
                continue
            if limiter._is_replying(now - since):  # noqa: SLF001
                until = now + self._reply_timeout
                self._waiting[call_id] = (future, until, since, limiter, decide, key, cost)
            else:
                future.set_result(decide(key, cost))
        self._is_timed = bool(self._waiting)
        if self._is_timed:
            _, until, *_ = next(iter(self._waiting.values()))
            loop.call_at(until, self._decide_overdue, loop)

    def _collect(self) -> None:
        with contextlib.suppress(BlockingIOError):  # nothing has come since
            os.read(self._reader, 4096)
        waiting = self._waiting
        for call_id, decision in self.queue.take_all():
            call = waiting.pop(call_id, None)
            if call is not None and not call[0].done():
                call[0].set_result(decision)


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


def submit(
    limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None"
) -> "Decision | asyncio.Future[Decision]":
    """Return the decision about a hit, or its future if Redis makes it. It is not reported to the hook."""
    completions = _completions_of(asyncio.get_running_loop(), limiter._reply_timeout)  # noqa: SLF001
    call_id = next(completions.call_ids)
    decision = limiter._submit(key, cost, completions.queue, call_id, rates)  # noqa: SLF001
    if decision is not None:
        return decision
    return completions.expect(call_id, limiter, limiter._decide_fallback, key, cost)  # noqa: SLF001


async def try_hit_async(limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None") -> "Decision":
    decision = submit(limiter, key, cost, rates)
    return decision if isinstance(decision, Decision) else await decision


async def peek_async(limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None") -> "Decision":
    completions = _completions_of(asyncio.get_running_loop(), limiter._reply_timeout)  # noqa: SLF001
    call_id = next(completions.call_ids)
    decision = limiter._submit_peek(key, cost, completions.queue, call_id, rates)  # noqa: SLF001
    if decision is None:
        look = limiter._peek_fallback  # noqa: SLF001
        decision = await completions.expect(call_id, limiter, look, key, cost)
    return decision


async def refund_async(limiter: "Limiter", key: "Key", cost: int, rates: "Rates | None") -> None:
    completions = _completions_of(asyncio.get_running_loop(), limiter._reply_timeout)  # noqa: SLF001
    call_id = next(completions.call_ids)
    if limiter._submit_refund(key, cost, completions.queue, call_id, rates) is None:  # noqa: SLF001
        # Without a reply the look at the key is no confirmation either: its source is not Redis.
        look = limiter._peek_fallback  # noqa: SLF001
        outcome = await completions.expect(call_id, limiter, look, key, cost)
        if not outcome or outcome.source != "redis":
            raise ConnectionError(f"{cost} units are not given back, or Redis did not confirm it in time")
