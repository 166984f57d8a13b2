"""Who asks for what is being asked for already waits for the same answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """
    One question at a time for each key, however many ask; belongs to one event loop.

    The question outlives whoever asked first: a caller that goes away, or whose deadline is near, takes
    nobody's answer along.
    """

    def __init__(self) -> None:
        self._under_way: dict[K, asyncio.Task[V]] = {}

    def __contains__(self, key: K) -> bool:
        """Is *key* being asked for right now?"""
        return self._asked(key) is not None

    async def do(self, key: K, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return what the question about *key* that is under way gives; else what *ask* gives, or raises."""
        task = self._asked(key)
        if task is None:
            # In a context of its own: the answer has not the deadline of whoever asked first.
            task = self._under_way[key] = asyncio.create_task(ask(), context=Context())
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    def _asked(self, key: K) -> asyncio.Task[V] | None:
        # One that is done is only waiting to be cleared away: its answer may be used up.
        task = self._under_way.get(key)
        return None if task is None or task.done() else task

    def _finished(self, key: K, task: asyncio.Task[V]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # seen, even if every caller has gone away
