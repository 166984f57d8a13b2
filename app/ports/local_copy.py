"""`LocalCopy`: what the processes of a machine knew of the store last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class LocalCopy(Protocol[T]):
    """The blocks, or the domains, that were known last. Never raises: without a copy there is none."""

    async def keep(self, known: Sequence[T]) -> None:
        """Replace the copy."""
        ...

    async def kept(self) -> Sequence[T] | None:
        """Return the copy; None if there is none that can be read."""
        ...
