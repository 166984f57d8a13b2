"""Time limits for many concurrent calls by one shared timer, where `asyncio.timeout` sets one for each."""

from __future__ import annotations

import asyncio

# A timer that fires this late means that the event loop was busy.
_LATE_S = 0.01


class Expiring:
    """One call with a limit."""

    __slots__ = ("cancelling", "end", "has_expired", "task")

    def __init__(self, task: asyncio.Task[object], end: float) -> None:
        self.task = task
        self.end = end
        self.cancelling = task.cancelling()
        self.has_expired = False


class Expiry:
    """
    Cancels calls that take longer than *limit_s*, as `asyncio.timeout` does, at a fraction of its cost.

    All calls have the same limit, so the oldest expires first and one timer is enough. After a busy
    loop, replies may be waiting unread: calls are then extended once, by as long as the loop was late.
    Belongs to one event loop.

        call = expiry.start()
        try:
            result = await work()
        except BaseException as error:
            if expiry.stop(call) and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from None
            raise
        expiry.stop(call)
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._calls: dict[Expiring, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._has_extended = False

    def start(self) -> Expiring:
        """Limit the running task, until `stop`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("only a running task can have a limit")
        call = Expiring(task, loop.time() + self._limit_s)
        self._calls[call] = None
        if self._timer is None:
            self._set_timer(loop, call.end)
        return call

    def stop(self, call: Expiring) -> bool:
        """End the limit of *call*. Was the task cancelled by it, and by nothing else?"""
        if not call.has_expired:
            del self._calls[call]
            return False
        return call.task.uncancel() <= call.cancelling

    def _set_timer(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._due = due
        self._timer = loop.call_at(due, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late_s = now - self._due
        self._timer = None
        if late_s > _LATE_S and not self._has_extended:
            self._has_extended = True
            self._set_timer(loop, now + min(late_s, self._limit_s))
            return
        self._has_extended = False
        for call in list(self._calls):
            if call.end > now:
                self._set_timer(loop, call.end)
                return
            del self._calls[call]
            call.has_expired = True
            call.task.cancel()
