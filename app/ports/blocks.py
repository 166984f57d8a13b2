"""`BlockStore`: blocked hosts and slugs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.blocks import Block, BlockChange, StoredBlock


@dataclass(frozen=True, slots=True)
class BlockPage:
    """One page of blocks, latest first; `next_before` continues it, None on the last."""

    blocks: tuple[StoredBlock, ...]
    next_before: int | None


class BlockStore(Protocol):
    """
    Blocked hosts and slugs, and the log of their changes.

    Changes are numbered in the order of their commits: a reader that has seen version n has seen every
    change up to n. Raises (every method): Unavailable.
    """

    async def add_blocks(self, blocks: Sequence[Block], *, now: datetime) -> Sequence[Block]:
        """Store *blocks*; return those that were not there."""
        ...

    async def remove_blocks(self, blocks: Sequence[Block]) -> Sequence[Block]:
        """Remove *blocks*; return those that were there."""
        ...

    async def block_page(self, *, before: int | None, limit: int) -> BlockPage:
        """Return up to *limit* blocks whose latest change is before the version *before*."""
        ...

    async def blocks_version(self) -> int:
        """Return the version of the latest change, 0 if there was none. Cheap: it is asked all the time."""
        ...

    async def blocks_since(self, version: int, *, limit: int) -> Sequence[BlockChange]:
        """Return up to *limit* blocks that changed after *version*, as they stand, in order of versions."""
        ...
