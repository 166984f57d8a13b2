"""
What every process keeps in memory, and asks the store about all the time: blocks and domains.

The store numbers their changes, so asking is one row of an index. A change holds everywhere within a second,
whatever has become of broker and cache.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

from app.domain.link import Resolution, Slug
from app.ports import LocalCopy

T = TypeVar("T")

# A change shows within this time, plus the time until the store answers.
LOOK_EVERY_S = 0.4
# How long a gateway that starts waits for a store that is silent.
FIRST_LOOK_S = 0.5
# Entries of the L1 cache that are examined or rendered before other work of the event loop has its turn.
SLICE = 1000


class Answers(Protocol):
    """The part of an L1 cache that a change concerns."""

    def held(self) -> Sequence[Resolution]:
        """As `L1.held`."""
        ...

    def without_target(self) -> Sequence[Slug]:
        """As `L1.without_target`."""
        ...

    def render_again(self, slugs: Collection[Slug]) -> None:
        """As `L1.render_again`."""
        ...


class Polled(ABC, Generic[T]):
    """
    Asks the store again and again, and leaves a copy of what is known.

    Belongs to one event loop.

    Args:
        copy: what to start from while the store is away, and where each change is left.
    """

    def __init__(self, copy: LocalCopy[T] | None) -> None:
        self._copy = copy
        self._is_kept = True

    @abstractmethod
    async def look(self) -> None:
        """Bring what was committed before the call to this process. Without an answer nothing changes."""

    @abstractmethod
    def known(self) -> Sequence[T]:
        """Return what the copy has to hold."""

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Ask now and every `LOOK_EVERY_S`, until cancelled."""
        while True:
            await self.look()
            await self._keep()
            await sleep(LOOK_EVERY_S)

    async def aclose(self) -> None:
        """Leave the copy of what is known."""
        await self._keep()

    async def _kept(self) -> Sequence[T] | None:
        return await self._copy.kept() if self._copy is not None else None

    async def _keep(self) -> None:
        if self._copy is not None and not self._is_kept:
            # Before the write: what changes meanwhile is kept by the next one.
            self._is_kept = True
            try:
                await self._copy.keep(self.known())
            except BaseException:
                self._is_kept = False
                raise
