"""
Sessions of the console, and the links that begin one: both stand for an API key, and hold nothing of it.

A session is a random id and its HMAC under the hash of the key's secret. Every gateway can check it by the
key alone, no store keeps it, and it ends with the secret: at a revocation, an expiry or a rotation. A sign-in
link is the secret of a key of its own, hashed in another way than the texts of keys, so that no text is that
key. The sign-in replaces its hash, which succeeds once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.ports import ApiKey, ApiKeyStore
from app.service import keys
from app.service.keys import Claim, Scope

SESSION_LIFETIME = timedelta(hours=12)
LINK_LIFETIME = timedelta(minutes=10)
_ID_BYTES = 32
_SESSION = re.compile(r"([0-9A-Za-z]{8})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")
_LINK = re.compile(r"([0-9A-Za-z]{8})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
# Clocks of gateways differ a little.
_AHEAD_S = 60


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in of a key. Its `text` is secret, and so is its `form_token`, which its forms hold."""

    key_id: str
    began: int
    nonce: str
    mac: bytes

    @classmethod
    def of(cls, text: str) -> Session | None:
        """Return the session *text*; None if it is none."""
        match = _SESSION.fullmatch(text)
        if match is None:
            return None
        return cls(match[1], int(match[2]), match[3], _decoded(match[4]))

    @classmethod
    def begun(cls, key_id: str, secret_hash: bytes, *, began: int, nonce: bytes) -> Session:
        """Return a new session of the key whose secret has *secret_hash*."""
        text = _encoded(nonce)
        return cls(key_id, began, text, _mac(secret_hash, key_id, began, text))

    @property
    def text(self) -> str:
        """What the browser keeps."""
        return f"{self.key_id}.{self.began}.{self.nonce}.{_encoded(self.mac)}"

    @property
    def form_token(self) -> str:
        """What a form must send beside the session: another site cannot know it."""
        return _encoded(hmac.digest(self.mac, b"hopgate console form", "sha256"))

    def is_of(self, hashes: tuple[bytes, ...], now: datetime) -> bool:
        """Return whether it is a session of the key whose secrets have *hashes*, and not over."""
        age_s = now.timestamp() - self.began
        matches = [
            hmac.compare_digest(self.mac, _mac(one, self.key_id, self.began, self.nonce)) for one in hashes
        ]
        return any(matches) and -_AHEAD_S <= age_s < SESSION_LIFETIME.total_seconds()


@dataclass(frozen=True, slots=True)
class SignInLink:
    """What `hopgate console` prints as a part of a URL: it begins one session, within ten minutes."""

    key_id: str
    made: int
    secret: str

    @classmethod
    def of(cls, text: str) -> SignInLink | None:
        """Return the link *text*; None if it is none."""
        match = _LINK.fullmatch(text)
        return None if match is None else cls(match[1], int(match[2]), match[3])

    @property
    def text(self) -> str:
        """What stands in the URL."""
        return f"{self.key_id}.{self.made}.{self.secret}"

    @property
    def hash(self) -> bytes:
        """What the store has of it: the time is part of it, so that it cannot be changed."""
        return hashlib.sha256(f"hopgate sign-in link {self.text}".encode("ascii")).digest()

    def is_of(self, hashes: tuple[bytes, ...], now: datetime) -> bool:
        """Return whether it was made for the key whose secrets have *hashes*, and is not over."""
        matches = [hmac.compare_digest(self.hash, one) for one in hashes]
        age_s = now.timestamp() - self.made
        return any(matches) and -_AHEAD_S <= age_s < LINK_LIFETIME.total_seconds()


def new_link(
    name: str,
    scopes: frozenset[Scope],
    *,
    now: datetime,
    choice: Callable[[str], str],
    random: Callable[[int], bytes],
) -> tuple[SignInLink, ApiKey]:
    """
    Make a link, and the key to store for it, which ends with the longest session that the link can begin.

    Raises:
        InvalidInput: as `app.service.keys.issue`.
    """
    _, key = keys.issue(name, scopes, now=now, choice=choice)
    link = SignInLink(key.key_id, int(now.timestamp()), _encoded(random(_ID_BYTES)))
    return link, replace(key, secret_hash=link.hash, expires_at=now + LINK_LIFETIME + SESSION_LIFETIME)


class Sessions:
    """
    Begins sessions.

    Args:
        random: so many unpredictable bytes.
        on_change: receives the id of a key whose sign-in link was used.
    """

    def __init__(
        self,
        store: ApiKeyStore,
        *,
        clock: Callable[[], datetime],
        random: Callable[[int], bytes],
        on_change: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._on_change = on_change

    async def begin(self, text: str | Claim) -> Session | None:
        """
        Return a new session of the key *text*, or of a sign-in link, which was authenticated.

        None: the key is gone by now, or the link was used.

        Raises:
            Unavailable: the store did not answer. A link may be used up.
        """
        claim = keys.claim_of(text)
        key = None if claim is None else await self._store.get_key(claim.key_id)
        now = self._clock()
        if claim is None or key is None or not key.is_live(now):
            return None
        found = next((one for one in key.hashes(now) if claim.is_of((one,), now)), None)
        if found is not None and isinstance(claim, SignInLink):
            found = await self._used(claim, now)
        if found is None:
            return None
        nonce = self._random(_ID_BYTES)
        return Session.begun(key.key_id, found, began=int(now.timestamp()), nonce=nonce)

    async def _used(self, link: SignInLink, now: datetime) -> bytes | None:
        """Put a hash of nothing in the place of that of *link*; None if another sign-in has done so."""
        new = self._random(_ID_BYTES)
        is_first = await self._store.rotate_key(link.key_id, old=link.hash, new=new, old_until=now)
        self._on_change(link.key_id)
        return new if is_first else None


def _mac(secret_hash: bytes, key_id: str, began: int, nonce: str) -> bytes:
    return hmac.digest(secret_hash, f"hopgate console session {key_id}.{began}.{nonce}".encode(), "sha256")


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
