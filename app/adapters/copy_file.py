"""`LocalCopy` in files of the data folder, for a gateway that starts while the store is away."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import msgspec

from app.domain.blocks import Block, BlockKind
from app.domain.domains import Domain

log = logging.getLogger(__name__)

T = TypeVar("T")

_BLOCKS = "hopgate blocks 1"
_domains = msgspec.json.Decoder(list[Domain])


class _CopyFile(ABC, Generic[T]):
    """A copy at *path*. Processes may share it: each writes all."""

    what: str

    def __init__(self, path: Path) -> None:
        self._path = path
        # A cancelled caller leaves its thread running, and may call again meanwhile.
        self._lock = Lock()

    @abstractmethod
    def _encoded(self, known: Sequence[T]) -> bytes: ...

    @abstractmethod
    def _decoded(self, body: bytes) -> Sequence[T]:
        """Raises ValueError: it cannot be read."""

    async def keep(self, known: Sequence[T]) -> None:
        body = self._encoded(known)
        try:
            await asyncio.to_thread(self._write, body)
        except OSError as error:
            log.warning("cannot write the copy of the %s, %s: %s", self.what, self._path, error.strerror)

    async def kept(self) -> Sequence[T] | None:
        try:
            return self._decoded(await asyncio.to_thread(self._path.read_bytes))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("cannot read the copy of the %s, %s: %s", self.what, self._path, error)
            return None

    def _write(self, body: bytes) -> None:
        """Replace the file: a reader finds the old one or the new one, never a part."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with self._lock:
            try:
                fresh.write_bytes(body)
                fresh.replace(self._path)
            finally:
                fresh.unlink(missing_ok=True)


class BlockFile(_CopyFile[Block]):
    """One block a line, below the name of the format."""

    what = "blocks"

    def _encoded(self, known: Sequence[Block]) -> bytes:
        return "\n".join([_BLOCKS, *(f"{block.kind} {block.value}" for block in known), ""]).encode()

    def _decoded(self, body: bytes) -> Sequence[Block]:
        head, *lines, end = body.decode("utf-8").split("\n")
        if head != _BLOCKS or end:
            raise ValueError("it is incomplete, or of another version")
        return [Block(BlockKind(kind), value) for kind, _, value in (line.partition(" ") for line in lines)]


class DomainFile(_CopyFile[Domain]):
    """All domains as JSON."""

    what = "domains"

    def _encoded(self, known: Sequence[Domain]) -> bytes:
        return msgspec.json.encode(list(known))

    def _decoded(self, body: bytes) -> Sequence[Domain]:
        return _domains.decode(body)
