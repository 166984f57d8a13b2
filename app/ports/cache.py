"""`LinkCache`: resolutions, shared by all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.link import Resolution, Slug


@dataclass(frozen=True, slots=True)
class CachePage:
    """One page of a scan. `next_cursor` continues it, 0 at the end; `total` is an estimate."""

    slugs: tuple[Slug, ...]
    next_cursor: int
    total: int


class LinkCache(Protocol):
    """
    A shared cache of resolutions in which an older version never replaces a newer one.

    Raises (every method): Unavailable.
    """

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """Return the cached ones; misses and unreadable entries are left out. At most 1,000 slugs."""
        ...

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """
        Write each resolution unless the cache holds the same or a newer version of it.

        Returns how many were written. Absent ones (version 0) live 5–15 s and lose to any real
        link; gone ones live about a day, longer than every late write.
        """
        ...

    async def scan(self, cursor: int) -> CachePage:
        """
        Return some of the slugs held, absent ones included, beginning with cursor 0.

        A scan that follows `next_cursor` to the end returns every slug that is held throughout,
        some of them twice.
        """
        ...

    async def forget(self, slugs: Sequence[Slug]) -> None:
        """Delete the entries of *slugs*, whatever their version. For repairs: it guards nothing."""
        ...

    async def ping(self) -> None:
        """Return if the cache answers."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
