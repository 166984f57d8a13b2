"""`ApiKeyStore`: API keys at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key at rest. `secret_hash` is SHA-256 of a secret with at least 250 bits."""

    key_id: str
    name: str
    secret_hash: bytes
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None = None


class ApiKeyStore(Protocol):
    """API keys. Raises (every method): Unavailable."""

    async def add_key(self, key: ApiKey) -> None:
        """Store *key*; one that has its id stays as it is."""
        ...

    async def get_key(self, key_id: str) -> ApiKey | None:
        """Return the key, revoked ones included."""
        ...

    async def list_keys(self) -> Sequence[ApiKey]:
        """Return all keys, oldest first, revoked ones included."""
        ...

    async def revoke_key(self, key_id: str, *, now: datetime) -> bool:
        """Revoke the key; False if there is none. Revoking twice keeps the first time."""
        ...
