"""The operations on API keys: create, list, revoke, rotate; and when keys were last used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.domain.networks import covers
from app.domain.rules import checked_time
from app.ports import ApiKey, ApiKeyStore
from app.service import keys
from app.service.key_restrictions import ReadRate, Restrictions, restricted
from app.service.keys import Authenticator, Principal, Scope

log = logging.getLogger(__name__)

# How often uses are written: not more than once a minute for each key.
_USES_S = 60.0


@dataclass(frozen=True, slots=True)
class Issued:
    """A key and its text, which is not stored and shown once."""

    text: str
    key: ApiKey


_UNRESTRICTED = Restrictions()


class KeyManagement:
    """
    The operations on API keys. Raises (every operation): Unavailable.

    Args:
        clock: the present time, timezone-aware UTC.
        choice: picks one character of a string, unpredictably.
        on_change: receives the id of each key that was changed; other processes notice within a second.
        read_rate: see `ReadRate`.
    """

    def __init__(
        self,
        store: ApiKeyStore,
        *,
        clock: Callable[[], datetime],
        choice: Callable[[str], str],
        on_change: Callable[[str], None],
        read_rate: ReadRate,
    ) -> None:
        self._read_rate = read_rate
        self._store = store
        self._clock = clock
        self._choice = choice
        self._on_change = on_change

    async def create(
        self,
        name: str,
        scopes: frozenset[Scope],
        *,
        by: Principal,
        expires_at: datetime | None = None,
        expires_in: timedelta | None = None,
        restrictions: Restrictions = _UNRESTRICTED,
    ) -> Issued:
        """
        Make a key. No key grants more than it has: neither scopes, nor time, nor addresses.

        Without an expiry, or addresses, the new key has those of *by*.

        Raises:
            InvalidInput: a rule is broken.
        """
        now = self._clock()
        if expires_in is not None:
            expires_at = now + expires_in
        errors: list[FieldError] = []
        if not scopes:
            errors.append(FieldError("scopes", "scopes_empty", "must name at least one"))
        missing = sorted(scope for scope in scopes if not by.may(scope))
        if missing:
            errors.append(
                FieldError("scopes", "scope_not_held", f"has {', '.join(missing)}, which this key lacks")
            )
        expires_at = by.expires_at if expires_at is None else checked_time("expires_at", expires_at, errors)
        if expires_at is not None and expires_at <= now:
            errors.append(FieldError("expires_at", "time_past", "lies in the past"))
        elif expires_at is not None and by.expires_at is not None and expires_at > by.expires_at:
            errors.append(FieldError("expires_at", "expiry_not_held", "lies after the end of this key"))
        if errors:
            raise InvalidInput(errors)
        text, key = keys.issue(name, scopes, now=now, choice=self._choice)
        key = replace(key, expires_at=expires_at)
        key = restricted(key, restrictions, read_rate=self._read_rate, by=by)
        await self._store.add_key(key)
        return Issued(text, key)

    async def all(self) -> Sequence[ApiKey]:
        """Return every key, oldest first, revoked and expired ones included."""
        return await self._store.list_keys()

    async def get(self, key_id: str) -> ApiKey | None:
        """Return the key."""
        return await self._store.get_key(key_id)

    async def owners(self) -> frozenset[str]:
        """Return the ids of the keys that links may be handed to: those that are not revoked."""
        return frozenset(key.key_id for key in await self.all() if key.revoked_at is None)

    async def revoke(self, key_id: str) -> bool:
        """Revoke the key; False if there is none."""
        is_there = await self._store.revoke_key(key_id, now=self._clock())
        self._on_change(key_id)
        return is_there

    async def rotate(self, key_id: str, *, by: Principal, grace: timedelta) -> Issued | None:
        """
        Give the key another secret; the present one counts for *grace* more, an older one no longer.

        None: there is no such key, or it is revoked or expired.

        Raises:
            InvalidInput: the key grants more than *by*, which would have it then.
        """
        now = self._clock()
        current = await self._store.get_key(key_id)
        if current is None or not current.is_live(now):
            return None
        if by.expires_at is not None and (current.expires_at is None or current.expires_at > by.expires_at):
            raise InvalidInput([FieldError("key_id", "expiry_not_held", "counts after the end of this key")])
        if by.allowed_addresses and not (
            current.allowed_addresses and covers(by.allowed_addresses, current.allowed_addresses)
        ):
            message = "may be used from addresses from which this key cannot be used"
            raise InvalidInput([FieldError("key_id", "address_not_held", message)])
        text, key = keys.reissue(current, choice=self._choice)
        rotated = await self._store.rotate_key(
            key_id, old=current.secret_hash, new=key.secret_hash, old_until=now + grace
        )
        self._on_change(key_id)
        if not rotated:  # it was revoked, or rotated, since it was read
            return None
        return Issued(text, replace(key, old_secret_hash=current.secret_hash, old_until=now + grace))


def check_owner(owner: str | None, known: Collection[str]) -> None:
    """
    Check that links may be handed to *owner*; empty: to none, None: they are not.

    Raises:
        InvalidInput: it is none of *known*, see `KeyManagement.owners`.
    """
    if owner and owner not in known:
        raise InvalidInput([FieldError("owner", "owner_unknown", "is the id of no key that counts")])


class KeyUses:
    """Writes when keys were last used, once a minute: no request waits for it."""

    def __init__(self, store: ApiKeyStore, authenticator: Authenticator) -> None:
        self._store = store
        self._authenticator = authenticator

    async def run(self) -> None:
        """Write, until cancelled."""
        while True:
            await asyncio.sleep(_USES_S)
            await self._write()

    async def aclose(self) -> None:
        """Write what is left."""
        await self._write()

    async def _write(self) -> None:
        uses = self._authenticator.take_uses()
        if not uses:
            return
        try:
            await self._store.note_key_uses(uses)
        except Unavailable as error:
            # The next use of the key notes a later time.
            log.info("uses of %d keys are not noted: %s", len(uses), error)
