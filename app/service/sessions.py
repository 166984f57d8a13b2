"""
Sessions of the console, and the links that begin one: both stand for an API key, and hold nothing of it.

A session is a random id. The store has its hash, so nothing that is stored signs in. It ends with its row,
and with the secret of the key that it began with: at a revocation, an expiry or a rotation. A sign-in link is
the secret of a key of its own, hashed in another way than the texts of keys, so that no text is that key. The
sign-in replaces its hash, which succeeds once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from app.concurrency.single_flight import SingleFlight
from app.domain.errors import Unavailable
from app.ports import ApiKey, ApiKeyStore, ConsoleSession, ConsoleSessionStore
from app.service import keys
from app.service.keys import Claim, Reference, Scope

_V = TypeVar("_V")

SESSION_LIFETIME = timedelta(hours=12)
LINK_LIFETIME = timedelta(minutes=10)
# Of one key; a further sign-in ends the oldest.
MAX_SESSIONS = 100
_ID_BYTES = 32
_SESSION = re.compile(r"[A-Za-z0-9_-]{43}")
_LINK = re.compile(r"([0-9A-Za-z]{8})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
# Clocks of gateways differ a little.
_AHEAD_S = 60
# A session that was ended stops counting everywhere within this time.
_CACHE_S = 1.0
_MAX_CACHED = 10_000
# As in `app.service.keys`: how old the list of all sessions may be.
_LIST_S = 1.0


@dataclass(frozen=True, slots=True)
class SessionId:
    """What the browser keeps of a session. It is secret, and so is its `form_token`, which its forms hold."""

    text: str

    @classmethod
    def of(cls, text: str) -> SessionId | None:
        """Return the id that *text* is; None if it is none."""
        return cls(text) if _SESSION.fullmatch(text) else None

    @property
    def hash(self) -> bytes:
        """What the store has of it."""
        return hashlib.sha256(self.text.encode("ascii")).digest()

    @property
    def form_token(self) -> str:
        """What a form must send beside the session: other sites and readers of the store cannot know it."""
        return _encoded(hmac.digest(self.text.encode("ascii"), b"hopgate console form", "sha256"))

    def __repr__(self) -> str:
        return "SessionId(...)"


@dataclass(frozen=True, slots=True)
class _SessionClaim:
    """A session of the store: it counts as long as the secret of its key that it began with."""

    session: ConsoleSession

    @property
    def key_id(self) -> str:
        return self.session.key_id

    def is_of(self, hashes: tuple[bytes, ...], now: datetime) -> bool:
        return self.session.secret_hash in hashes and now < self.session.expires_at


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


class _Store(ApiKeyStore, ConsoleSessionStore, Protocol):
    """What sessions need of a store."""


class Sessions:
    """
    Begins and ends sessions, and finds them. Reads each from the store at most once a second.

    Args:
        random: so many unpredictable bytes.
        monotonic: seconds that never go back.
        on_change: receives the id of a key whose sign-in link was used.
    """

    def __init__(
        self,
        store: _Store,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Callable[[int], bytes],
        on_change: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._on_change = on_change
        self._cache: OrderedDict[bytes, tuple[ConsoleSession | None, float]] = OrderedDict()
        self._asking: SingleFlight[bytes, ConsoleSession | None] = SingleFlight()
        # Only stored sessions get in, so ids that lead nowhere cannot evict them.
        self._known: OrderedDict[bytes, ConsoleSession] = OrderedDict()
        self._listed: tuple[Mapping[bytes, ConsoleSession], float] = ({}, -math.inf)
        self._listing: SingleFlight[str, Mapping[bytes, ConsoleSession]] = SingleFlight()

    async def begin(self, text: str | Claim, *, instead_of: SessionId | None = None) -> SessionId | None:
        """
        Return a new session of the key *text*, or of a sign-in link, which was authenticated.

        None: the key is gone by now, or the link was used.

        Args:
            instead_of: the session that the browser has had, which ends.

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
        if instead_of is not None:
            await self.end(instead_of)
        session_id = SessionId(_encoded(self._random(_ID_BYTES)))
        session = ConsoleSession(
            id_hash=session_id.hash,
            key_id=key.key_id,
            secret_hash=found,
            created_at=now,
            expires_at=now + SESSION_LIFETIME,
        )
        await self._store.add_session(session, keep=MAX_SESSIONS)
        # The list of all may be from before: its first page must not depend on that.
        _keep(self._known, session.id_hash, session)
        return session_id

    async def end(self, session_id: SessionId) -> None:
        """End the session: here at once, elsewhere within a second. Raises Unavailable."""
        await self._store.end_session(session_id.hash)
        self._cache.pop(session_id.hash, None)
        self._known.pop(session_id.hash, None)

    def reference(self, session_id: SessionId) -> Reference:
        """Return what finds the session of *session_id* for an `Authenticator`."""
        return _SessionReference(self, session_id.hash)

    def known(self, id_hash: bytes) -> ConsoleSession | None:
        """Return the session that was there when it was last looked up; without a look-up."""
        return self._known.get(id_hash)

    async def find(self, id_hash: bytes, *, stale_s: float = 0.0) -> ConsoleSession | None:
        """
        Return the session, looked up within the last second.

        Raises:
            Unavailable: the store did not answer, and the session was not looked up within *stale_s* before.
        """
        known = self._cache.get(id_hash)
        if known is not None and self._monotonic() < known[1]:
            return known[0]
        try:
            return await self._asking.do(id_hash, lambda: self._ask(id_hash))
        except Unavailable:
            if known is not None and self._monotonic() < known[1] + stale_s:
                return known[0]
            raise

    async def find_listed(self, id_hash: bytes) -> ConsoleSession | None:
        """Return the session, if a list of all has it that is at most a second old. Raises Unavailable."""
        listed, until = self._listed
        if self._monotonic() >= until:
            listed = await self._listing.do("", self._list)
        return listed.get(id_hash)

    async def _list(self) -> Mapping[bytes, ConsoleSession]:
        asked = self._monotonic()
        listed = {one.id_hash: one for one in await self._store.list_sessions()}
        self._listed = (listed, asked + _LIST_S)
        return listed

    async def _ask(self, id_hash: bytes) -> ConsoleSession | None:
        asked = self._monotonic()
        session = await self._store.get_session(id_hash)
        _keep(self._cache, id_hash, (session, asked + _CACHE_S))
        if session is None:
            self._known.pop(id_hash, None)
        else:
            _keep(self._known, id_hash, session)
        return session

    async def _used(self, link: SignInLink, now: datetime) -> bytes | None:
        """Put a hash of nothing in the place of that of *link*; None if another sign-in has done so."""
        new = self._random(_ID_BYTES)
        is_first = await self._store.rotate_key(link.key_id, old=link.hash, new=new, old_until=now)
        self._on_change(link.key_id)
        return new if is_first else None


@dataclass(frozen=True, slots=True)
class _SessionReference(Reference):
    """Leads from the id of a session to what it claims."""

    sessions: Sessions
    id_hash: bytes

    def known(self) -> Claim | None:
        return _claim(self.sessions.known(self.id_hash))

    async def listed(self) -> Claim | None:
        return _claim(await self.sessions.find_listed(self.id_hash))

    async def claim(self, *, stale_s: float = 0.0) -> Claim | None:
        return _claim(await self.sessions.find(self.id_hash, stale_s=stale_s))


def _claim(session: ConsoleSession | None) -> Claim | None:
    return None if session is None else _SessionClaim(session)


def _keep(cache: OrderedDict[bytes, _V], id_hash: bytes, value: _V) -> None:
    cache[id_hash] = value
    cache.move_to_end(id_hash)
    if len(cache) > _MAX_CACHED:
        cache.popitem(last=False)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
