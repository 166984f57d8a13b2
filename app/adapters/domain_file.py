"""`DomainCopy` in a file of the data folder, for a gateway that starts while the store is away."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import msgspec

from app.domain.domains import Domain

log = logging.getLogger(__name__)

_decoder = msgspec.json.Decoder(list[Domain])


class DomainFile:
    """All domains as JSON at *path*. Processes may share it: each writes all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A cancelled caller leaves its thread running, and may call again meanwhile.
        self._lock = Lock()

    async def keep(self, domains: Sequence[Domain]) -> None:
        body = msgspec.json.encode(list(domains))
        try:
            await asyncio.to_thread(self._write, body)
        except OSError as error:
            log.warning("cannot write the copy of the domains, %s: %s", self._path, error.strerror)

    async def kept(self) -> Sequence[Domain] | None:
        try:
            return _decoder.decode(await asyncio.to_thread(self._path.read_bytes))
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("cannot read the copy of the domains, %s: %s", self._path, error)
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
