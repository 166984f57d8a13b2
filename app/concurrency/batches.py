"""Batches keys that are added one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from itertools import islice
from typing import Generic, TypeVar

from app.concurrency.origins import on_behalf_of, origins, together
from app.concurrency.stopping import stop
from app.domain.origin import Origin

K = TypeVar("K")


class Batches(Generic[K]):
    """
    Gives keys to *work* in batches. Belongs to one event loop.

    A batch does not wait to fill up: it holds the keys added in the same turn of the event loop, or
    while `max_under_way` batches were running. So batches grow with the load. A batch has the origins of
    its keys.

    Args:
        work: must not raise; the error would be lost.
        max_under_way: how many batches run at a time.
        max_batch: how many keys in each.
        on_end: called at the end of each; keys that it adds are in the next one.
    """

    def __init__(
        self,
        work: Callable[[list[K]], Awaitable[None]],
        *,
        max_under_way: int,
        max_batch: int,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._max_under_way = max_under_way
        self._max_batch = max_batch
        self._on_end = on_end
        self._is_ending = False
        self._waiting: dict[K, tuple[Origin, ...]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """How many batches are running, or are about to."""
        return len(self._under_way) + (self._is_ending and bool(self._waiting))

    def add(self, key: K) -> None:
        """Add *key* to the next batch, unless it is in there."""
        self._waiting.setdefault(key, origins())
        self._start()

    def add_many(self, keys: Sequence[K]) -> None:
        """Add *keys*, which have the same origins."""
        if keys:
            whose = origins()
            for key in keys:
                self._waiting.setdefault(key, whose)
            self._start()

    def _start(self) -> None:
        if len(self._under_way) < self._max_under_way and not self._is_ending:
            # In a new context: a batch does not inherit the deadline of the request that started it.
            task = asyncio.get_running_loop().create_task(self._run(), context=Context())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Wait until every added key has been worked on."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def aclose(self) -> None:
        """Cancel the running batches and drop the waiting keys; bounded by `STOP_S`."""
        self._waiting.clear()
        await stop(self._under_way, "a batch of look-ups")

    async def _run(self) -> None:
        task = asyncio.current_task()
        try:
            # Also without a key, if another batch has taken them: until now it counted as under way.
            while self._waiting or self._goes_on(task):
                batch = list(islice(self._waiting, self._max_batch))
                with on_behalf_of(together(self._waiting.pop(key) for key in batch)):
                    await self._work(batch)
        finally:
            # At once: a key added before the done callback of this task must start a new one.
            if task is not None:
                self._under_way.discard(task)

    def _goes_on(self, task: asyncio.Task[None] | None) -> bool:
        """Call `on_end` as if *task* were over. Were keys added? It goes on with them."""
        if task is None:
            return False
        self._under_way.discard(task)
        self._is_ending = True
        try:
            self._on_end()
        finally:
            self._is_ending = False
            if self._waiting:
                self._under_way.add(task)
        return bool(self._waiting)
