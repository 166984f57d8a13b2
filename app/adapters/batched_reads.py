"""Reads of concurrent callers, a round trip at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

from app.domain.errors import Unavailable

# Enough to keep a connection busy while the answers to another are read.
_MAX_UNDER_WAY = 4
_MAX_BATCH = 500

Read = Callable[[Sequence[str]], Awaitable[Sequence[object]]]


class BatchedReads:
    """
    Reads together what is asked for in one turn of the event loop, or while others are read.

    Who asks alone does not wait for company, and who is cancelled cancels nobody's read.

    Args:
        read: returns the replies to keys, aligned; raises `Unavailable` for all of them.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: dict[str, asyncio.Future[object]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> object:
        """
        Return the reply to *key*.

        Raises:
            Unavailable: whatever `read` raised.
        """
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            # Looked at, even if everybody who waited has gone away.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            if len(self._under_way) < _MAX_UNDER_WAY:
                task = asyncio.create_task(self._work())
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(future)

    async def aclose(self) -> None:
        """Give up what is under way or waits."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        _give_up(self._waiting)

    async def _work(self) -> None:
        while self._waiting:
            batch = {key: self._waiting.pop(key) for key in list(islice(self._waiting, _MAX_BATCH))}
            try:
                replies = await self._read(list(batch))
                for future, reply in zip(batch.values(), replies, strict=True):
                    future.set_result(reply)
            except Unavailable as error:
                for future in batch.values():
                    future.set_exception(error)
            finally:
                # Closed, or failed by a mistake of ours: nobody may wait for ever.
                _give_up(batch)


def _give_up(reads: Mapping[str, asyncio.Future[object]]) -> None:
    for future in reads.values():
        if not future.done():
            future.set_exception(Unavailable("redis", "the read was given up"))
