"""`ConsoleSessionStore`: who is signed in to the console."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSession:
    """
    A session at rest. `id_hash` is SHA-256 of its id, which has 256 random bits and is not stored.

    `secret_hash` is the hash that the key's secret had at the sign-in: the session ends with that secret.
    """

    id_hash: bytes
    key_id: str
    secret_hash: bytes
    created_at: datetime
    expires_at: datetime


class ConsoleSessionStore(Protocol):
    """Sessions of the console. Raises (every method): Unavailable."""

    async def add_session(self, session: ConsoleSession, *, keep: int) -> None:
        """Store *session*, and delete the oldest of its key but *keep*, this one included."""
        ...

    async def get_session(self, id_hash: bytes) -> ConsoleSession | None:
        """Return the session, an expired one included."""
        ...

    async def list_sessions(self) -> Sequence[ConsoleSession]:
        """Return all, expired ones included, in no order."""
        ...

    async def end_session(self, id_hash: bytes) -> bool:
        """Delete the session; False if there is none."""
        ...

    async def forget_sessions(self, *, before: datetime, limit: int) -> int:
        """Delete up to *limit* sessions that expired before *before*; return how many."""
        ...
