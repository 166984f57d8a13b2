"""`IdempotencyStore`: requests that take effect once, however often they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

# Requests of imports are never forgotten: importing a file again stores nothing, however late.
IMPORT_SCOPE = "import"


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """
    Identifies a request that takes effect once.

    `scope` names the client (an API key's id, or `IMPORT_SCOPE`), `key` is the client's name for
    the request, `fingerprint` a digest of its contents.
    """

    scope: str
    key: str
    fingerprint: bytes


class IdempotencyStore(Protocol):
    """Requests that `LinkStore.add` has recorded. Raises (every method): Unavailable."""

    async def forget_requests(self, *, before: datetime) -> int:
        """Delete requests recorded before *before*, but not those of imports; return how many."""
        ...
