"""Time limits for many calls at once: one timer, where `asyncio.timeout` would set one for each."""

from __future__ import annotations

import asyncio

# A timer that comes this much later than it should says that the loop was busy.
_LATE_S = 0.01


class Expiring:
    """One call that is under way."""

    __slots__ = ("cancelling", "end", "has_expired", "task")

    def __init__(self, task: asyncio.Task[object], end: float) -> None:
        self.task = task
        self.end = end
        self.cancelling = task.cancelling()
        self.has_expired = False


class Expiry:
    """
    Cancels calls that last longer than *limit_s*, as `asyncio.timeout` does, for a fraction of its cost.

    All calls have the same limit, so the oldest ends first and one timer is enough. A loop that
    was busy elsewhere has not read the answers that are there: as long as it was late, everybody
    is given once more. Belongs to one event loop.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._calls: dict[Expiring, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._has_waited = False

    def start(self) -> Expiring:
        """Watch the task that runs now, until `stop`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("only a task can be given a limit")
        call = Expiring(task, loop.time() + self._limit_s)
        self._calls[call] = None
        if self._timer is None:
            self._set_timer(loop, call.end)
        return call

    def stop(self, call: Expiring) -> bool:
        """Watch *call* no longer. Was it cancelled here, and nowhere else?"""
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
        if late_s > _LATE_S and not self._has_waited:
            self._has_waited = True
            self._set_timer(loop, now + min(late_s, self._limit_s))
            return
        self._has_waited = False
        for call in list(self._calls):
            if call.end > now:
                self._set_timer(loop, call.end)
                return
            del self._calls[call]
            call.has_expired = True
            call.task.cancel()
