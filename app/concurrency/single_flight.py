"""Coalesces concurrent calls for the same key into one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """
    Runs one call per key at a time, and gives its result to every caller. Belongs to one event loop.

    The call outlives its first caller: a caller that is cancelled or reaches its deadline does not
    affect the others.
    """

    def __init__(self) -> None:
        self._under_way: dict[K, asyncio.Task[V]] = {}

    def __contains__(self, key: K) -> bool:
        """Return whether a call for *key* is running."""
        return self._asked(key) is not None

    async def do(self, key: K, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return, or raise, the outcome of the running call for *key*; without one, call *ask*."""
        task = self._asked(key)
        if task is None:
            # In a new context: the call does not inherit the deadline of its first caller.
            task = self._under_way[key] = asyncio.create_task(ask(), context=Context())
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    def _asked(self, key: K) -> asyncio.Task[V] | None:
        # A finished task is only waiting for its callback: its result may be out of date.
        task = self._under_way.get(key)
        return None if task is None or task.done() else task

    def _finished(self, key: K, task: asyncio.Task[V]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # retrieved, even if no caller is left
