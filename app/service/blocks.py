"""
Blocks: the operations on them, and the watch that brings each change to this process.

The store has the truth, with a version for each change. Every process keeps all blocks in memory, and
asks the store for the latest version all the time: one row of an index. So a change holds everywhere
within a second, whatever has become of broker and cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime

from app.domain.blocks import Block, BlockChange, BlockIndex, BlockKind
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.domain.link_key import name_of
from app.ports import BlockPage, BlockStore, LocalCopy
from app.service.polled import FIRST_LOOK_S, SLICE, Answers, Polled

log = logging.getLogger(__name__)

# Changes that are read before other work of the event loop has its turn: about five milliseconds.
_CHUNK = 1000


class Blocks:
    """
    The operations on blocks, for API and command line.

    Args:
        noticed: brings what was committed to this process before the caller goes on.
        clock: the present time, timezone-aware UTC.
    """

    def __init__(
        self, store: BlockStore, noticed: Callable[[], Awaitable[None]], *, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._noticed = noticed
        self._clock = clock

    async def add(self, blocks: Sequence[Block]) -> Sequence[Block]:
        """
        Block *blocks*; return those that were not blocked before.

        Raises:
            Unavailable: they may or may not be stored; adding them again does no harm.
        """
        added = await self._store.add_blocks(blocks, now=self._clock())
        await self._noticed()
        return added

    async def remove(self, blocks: Sequence[Block]) -> Sequence[Block]:
        """
        Unblock *blocks*; return those that were blocked.

        Raises:
            Unavailable: as `add`.
        """
        removed = await self._store.remove_blocks(blocks)
        await self._noticed()
        return removed

    async def page(self, *, before: int | None, limit: int) -> BlockPage:
        """
        Return one page of the blocks, latest first.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self._store.block_page(before=before, limit=limit)


async def loaded(store: BlockStore) -> BlockIndex:
    """Return the blocks that *store* has. Raises Unavailable."""
    index = BlockIndex()
    async for chunk in _changes(store, 0):
        for change in chunk:
            _apply(index, change)
    return index


class BlockWatch(Polled[Block]):
    """
    Keeps *index* as the store has it, and the answers of *l1* as *index* has it.

    Belongs to one event loop.

    Args:
        copy: what to start from while the store is away, and where `run` leaves it.
        hosts_changed: is called after each change of hosts, for what no link leads to.
    """

    def __init__(
        self,
        store: BlockStore,
        index: BlockIndex,
        l1: Answers,
        *,
        copy: LocalCopy[Block] | None = None,
        hosts_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._index = index
        self._l1 = l1
        super().__init__(copy)
        self._hosts_changed = hosts_changed
        self._version = 0
        self._epoch: int | None = None
        # The store may have another history than what was read.
        self._reads_all = True
        self._lock = asyncio.Lock()

    def begin_epoch(self, epoch: int) -> None:
        """The store has the history *epoch*: read all blocks anew if it is another."""
        if self._epoch is not None and epoch != self._epoch:
            self._reads_all = True
        self._epoch = epoch

    async def first_look(self) -> None:
        """
        Read all blocks, however many; without an answer within `FIRST_LOOK_S`, those of the copy.

        A silent store must not hold the start up.
        """
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._store.blocks_version()
            await self.look()
        if self._reads_all:
            kept = await self._kept()
            self._index.replace(BlockIndex(kept or ()))
            log.warning(
                "the store does not answer: %s",
                "nothing is blocked until it does" if kept is None else f"{len(kept)} blocks are from a copy",
            )

    async def look(self) -> None:
        """Bring what was committed before the call to this process. Without an answer nothing changes."""
        async with self._lock:
            with suppress(Unavailable):
                version = await self._store.blocks_version()
                if self._reads_all or version < self._version:
                    await self._read_all()
                elif version > self._version:
                    await self._read_later()

    def known(self) -> Sequence[Block]:
        """Return all blocks."""
        return self._index.blocks()

    async def _read_all(self) -> None:
        # Cleared before: an epoch that begins meanwhile sets it again.
        self._reads_all = False
        index, version = BlockIndex(), 0
        try:
            async for chunk in _changes(self._store, 0):
                version = chunk[-1].version
                for change in chunk:
                    _apply(index, change)
        except BaseException:
            self._reads_all = True
            raise
        hosts, slugs = self._index.hosts ^ index.hosts, self._index.slugs ^ index.slugs
        self._index.replace(index)
        self._version = version
        self._is_kept = False
        await self._changed(hosts, slugs)

    async def _read_later(self) -> None:
        async for chunk in _changes(self._store, self._version):
            hosts: set[str] = set()
            slugs: set[str] = set()
            for change in chunk:
                _apply(self._index, change)
                (hosts if change.block.kind is BlockKind.HOST else slugs).add(change.block.value)
            self._version = chunk[-1].version
            self._is_kept = False
            await self._changed(hosts, slugs)

    async def _changed(self, hosts: Collection[str], slugs: Collection[str]) -> None:
        """Render the answers anew that *hosts* and *slugs* concern; later reads are right already."""
        if not hosts and not slugs:
            return
        log.info(
            "blocks changed: %d hosts and %d slugs are blocked",
            len(self._index.hosts),
            len(self._index.slugs),
        )
        self._l1.render_again([Slug(slug) for slug in slugs])
        # The slugs of other domains, whose keys do not say so.
        touched = BlockIndex(
            [
                *(Block(BlockKind.HOST, host) for host in hosts),
                *(Block(BlockKind.SLUG, slug) for slug in slugs),
            ]
        )
        held, done = self._l1.held(), 0
        try:
            while done < len(held):
                self._render(held[done : done + SLICE], touched)
                done += SLICE
                await asyncio.sleep(0)
        finally:
            # Cancelled: the change is not read again, so the rest follows now.
            self._render(held[done:], touched)
            if hosts:
                self._hosts_changed()

    def _render(self, held: Sequence[Resolution], touched: BlockIndex) -> None:
        self._l1.render_again([one.slug for one in held if _concerns(touched, one)])


def _concerns(touched: BlockIndex, resolution: Resolution) -> bool:
    urls = [url for url in (resolution.long_url, resolution.expired_url) if url is not None]
    name = name_of(resolution.slug)
    return bool(urls) and (touched.has_slug(name, ignoring_case=True) or any(map(touched.has_host, urls)))


def _apply(index: BlockIndex, change: BlockChange) -> None:
    if change.is_removed:
        index.discard(change.block)
    else:
        index.add(change.block)


async def _changes(store: BlockStore, version: int) -> AsyncIterator[Sequence[BlockChange]]:
    """Give the changes after *version*, in chunks."""
    while chunk := await store.blocks_since(version, limit=_CHUNK):
        yield chunk
        if len(chunk) < _CHUNK:
            return
        version = chunk[-1].version
        # A store in a file answers without waiting for anything.
        await asyncio.sleep(0)
