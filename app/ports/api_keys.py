"""`ApiKeyStore`: API keys at rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """
    An API key at rest. `secret_hash` is SHA-256 of a secret with at least 250 bits.

    Until `old_until` the secret of `old_secret_hash` counts as well. `last_used_at` trails by a minute.

    `own_links`: the key reaches the links that it owns, and no others; `domains`: those of the domains with
    these ids. `allowed_addresses`: the networks that requests may come from; empty: any. `rate_limit`: what
    it may ask for, in place of the setting.
    """

    key_id: str
    name: str
    secret_hash: bytes
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    old_secret_hash: bytes | None = None
    old_until: datetime | None = None
    own_links: bool = False
    domains: frozenset[int] | None = None
    allowed_addresses: tuple[str, ...] = ()
    rate_limit: str | None = None

    @property
    def is_restricted(self) -> bool:
        """Whether a release that does not know its restrictions would let the key do more."""
        return self.own_links or self.domains is not None or bool(self.allowed_addresses)

    def is_live(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired at *now*."""
        return self.revoked_at is None and not self.has_expired(now)

    def has_expired(self, now: datetime) -> bool:
        """Return whether the time of the key is over at *now*."""
        return self.expires_at is not None and self.expires_at <= now

    def hashes(self, now: datetime) -> tuple[bytes, ...]:
        """Return the hashes of the secrets that count at *now*."""
        if self.old_secret_hash is None or self.old_until is None or self.old_until <= now:
            return (self.secret_hash,)
        return (self.secret_hash, self.old_secret_hash)


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

    async def rotate_key(self, key_id: str, *, old: bytes, new: bytes, old_until: datetime) -> bool:
        """
        Make *new* the hash of the key's secret, and let *old* count until *old_until*.

        False, and nothing is changed: there is no such key, it is revoked, or *old* is not its hash.
        """
        ...

    async def note_key_uses(self, uses: Mapping[str, datetime]) -> None:
        """Note when keys were used, by their ids, unless a later use is noted. Unknown ids are ignored."""
        ...
