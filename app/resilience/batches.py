"""Work on keys that come one by one, as many at a time as have come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")


class Batches(Generic[K]):
    """
    Gives keys to *work* in batches. Belongs to one event loop.

    A lone key does not wait for company: what came in the same turn of the loop, or while
    `max_under_way` batches are worked on, is the next batch. So batches grow with the load.

    Args:
        work: must not raise; nobody would hear of it.
        max_under_way: how many batches at a time.
        max_batch: how many keys in each.
    """

    def __init__(
        self, work: Callable[[list[K]], Awaitable[None]], *, max_under_way: int, max_batch: int
    ) -> None:
        self._work = work
        self._max_under_way = max_under_way
        self._max_batch = max_batch
        self._waiting: dict[K, None] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def add(self, key: K) -> None:
        """Have *key* worked on; once, if it waits already."""
        self._waiting[key] = None
        if len(self._under_way) < self._max_under_way:
            # In a context of its own: a batch has not the deadline of whoever asked first.
            task = asyncio.get_running_loop().create_task(self._run(), context=Context())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Wait until all that was added has been worked on."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def aclose(self) -> None:
        """Give up what is under way, and what waits."""
        self._waiting.clear()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _run(self) -> None:
        task = asyncio.current_task()
        try:
            while self._waiting:
                batch = list(islice(self._waiting, self._max_batch))
                for key in batch:
                    del self._waiting[key]
                await self._work(batch)
        finally:
            # At once: a key that comes before the callback of a task would find nobody to take it.
            if task is not None:
                self._under_way.discard(task)
