"""`BlockCopy` in a file of the data folder, for a gateway that starts while the store is away."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from app.domain.blocks import Block, BlockKind

log = logging.getLogger(__name__)

_HEAD = "hopgate blocks 1"


class BlockFile:
    """One block a line at *path*, below the name of the format. Processes may share it: each writes all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A cancelled caller leaves its thread running, and may call again meanwhile.
        self._lock = Lock()

    async def keep(self, blocks: Sequence[Block]) -> None:
        text = "\n".join([_HEAD, *(f"{block.kind} {block.value}" for block in blocks), ""])
        try:
            await asyncio.to_thread(self._write, text)
        except OSError as error:
            log.warning("cannot write the copy of the blocks, %s: %s", self._path, error.strerror)

    async def kept(self) -> Sequence[Block] | None:
        try:
            text = await asyncio.to_thread(self._path.read_text, "utf-8")
            head, *lines, end = text.split("\n")
            if head != _HEAD or end:
                raise ValueError("it is incomplete, or of another version")
            return [
                Block(BlockKind(kind), value) for kind, _, value in (line.partition(" ") for line in lines)
            ]
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("cannot read the copy of the blocks, %s: %s", self._path, error)
            return None

    def _write(self, text: str) -> None:
        """Replace the file: a reader finds the old one or the new one, never a part."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with self._lock:
            try:
                fresh.write_text(text, "utf-8")
                fresh.replace(self._path)
            finally:
                fresh.unlink(missing_ok=True)
