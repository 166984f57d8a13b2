"""
API keys: `hg_<id>_<secret>_<crc>`.

The checksum lets scanners and this service reject text that is no key without a look-up. The secret
has 256 bits and cannot be guessed, so one SHA-256 at rest is enough; a slow hash would let any
client use up the processor.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import unicodedata
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Protocol, TypeAlias

from app.concurrency.single_flight import SingleFlight
from app.domain import networks
from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.domain.link import Link
from app.domain.reach import EVERYTHING, Reach
from app.domain.rules import MAX_TITLE_LENGTH, text_problem
from app.ports import ApiKey, ApiKeyStore

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CRC_LENGTH = 8, 43, 6  # 62^43 > 2^256, 62^6 > 2^32
_SHAPE = re.compile(
    rf"hg_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})_([0-9A-Za-z]{{{_CRC_LENGTH}}})"
)
_NO_HASH = bytes(32)
# A revoked key stops working everywhere within this time.
_CACHE_S = 1.0
_MAX_CACHED = 10_000
# How old the list of all keys may be, that decides over keys from an address with many invalid ones.
_LIST_S = 1.0


class Scope(StrEnum):
    """What a key permits. `admin` permits everything, and `links:read` what `stats:read` does."""

    STATS_READ = "stats:read"
    LINKS_READ = "links:read"
    LINKS_WRITE = "links:write"
    CACHE_WRITE = "cache:write"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated client: a key that exists and is not revoked."""

    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None = None
    reach: Reach = EVERYTHING
    allowed_addresses: tuple[str, ...] = ()
    rate_limit: str | None = None

    def may(self, scope: Scope) -> bool:
        """Return whether *scope* is granted."""
        return not self.scopes.isdisjoint(granting(scope))

    def may_come_from(self, address: str) -> bool:
        """Return whether a client at *address* may use the key."""
        return not self.allowed_addresses or networks.allows(self.allowed_addresses, address)

    def may_see(self, link: Link) -> bool:
        """Return whether an answer may hold *link*, if the client did not just send it."""
        return self.may(Scope.LINKS_READ) and self.reach.holds(link)


@cache
def granting(scope: Scope) -> frozenset[Scope]:
    """Return the scopes that permit what *scope* does."""
    more = {Scope.LINKS_READ} if scope is Scope.STATS_READ else set()
    return frozenset({scope, Scope.ADMIN, *more})


@dataclass(frozen=True, slots=True)
class Expired:
    """The client has the secret of a key whose time is over."""


def parse_scopes(texts: Iterable[str]) -> frozenset[Scope]:
    """
    Return the scopes named by *texts*.

    Raises:
        InvalidInput: an unknown scope.
    """
    known = {scope.value: scope for scope in Scope}
    unknown = [text for text in texts if text not in known]
    if unknown:
        message = f"unknown scope {', '.join(unknown)}; there are {', '.join(known)}"
        raise InvalidInput([FieldError("scopes", "scope_unknown", message)])
    return frozenset(known[text] for text in texts)


def issue(
    name: str, scopes: frozenset[Scope], *, now: datetime, choice: Callable[[str], str]
) -> tuple[str, ApiKey]:
    """
    Make a new key; return its text, which is shown once, and the record to store.

    Args:
        name: a label under the rules for a link's title, with at least one visible character: listings tell
            keys apart by it.
        choice: picks one character of a string; pass `secrets.choice`.

    Raises:
        InvalidInput: *name* breaks them.
    """
    wrong = text_problem(name, MAX_TITLE_LENGTH)
    if wrong is None and all(unicodedata.category(character)[0] in "CZ" for character in name):
        wrong = "has nothing to read"
    if wrong is not None:
        message = f"must be at most {MAX_TITLE_LENGTH} printable characters, to tell keys apart: it {wrong}"
        raise InvalidInput([FieldError("name", "name_invalid", message)])
    text = _text("".join(choice(_BASE62) for _ in range(_ID_LENGTH)), choice)
    return text, record(text, name, scopes, now=now)


def reissue(key: ApiKey, *, choice: Callable[[str], str]) -> tuple[str, ApiKey]:
    """Return another text of *key*, and the key with the hash of its new secret."""
    text = _text(key.key_id, choice)
    return text, replace(key, secret_hash=record(text, key.name, frozenset(), now=key.created_at).secret_hash)


def _text(key_id: str, choice: Callable[[str], str]) -> str:
    body = f"hg_{key_id}_{''.join(choice(_BASE62) for _ in range(_SECRET_LENGTH))}"
    return f"{body}_{_checksum(body)}"


def record(text: str, name: str, scopes: frozenset[Scope], *, now: datetime) -> ApiKey:
    """
    Return what to store for the key *text*.

    Raises:
        InvalidInput: *text* is no key.
    """
    parts = _parts(text)
    if parts is None:
        raise InvalidInput([FieldError("key", "key_invalid", "is no key")])
    key_id, secret = parts
    return ApiKey(
        key_id=key_id,
        name=name,
        secret_hash=_hash(secret),
        scopes=frozenset(str(scope) for scope in scopes),
        created_at=now,
    )


class Claim(Protocol):
    """What stands for a key in place of its text: see `app.service.sessions`."""

    @property
    def key_id(self) -> str:
        """The id of the key."""
        ...

    def is_of(self, hashes: tuple[bytes, ...], now: datetime) -> bool:
        """Return whether it counts at *now* for a key whose secrets have these *hashes*."""
        ...


class Reference(ABC):
    """What leads to a claim by a look-up of its own: a session of the console."""

    @abstractmethod
    def known(self) -> Claim | None:
        """Return the claim, if it was there when it was last looked up; without a look-up."""

    @abstractmethod
    async def listed(self) -> Claim | None:
        """
        Return the claim, if it is in the list of all, which is at most a second old.

        It costs the store as much for any number of references that lead nowhere as for one.

        Raises:
            Unavailable: the store did not answer.
        """

    @abstractmethod
    async def claim(self, *, stale_s: float = 0.0) -> Claim | None:
        """
        Return the claim, which was looked up within the last second; None if there is none.

        Raises:
            Unavailable: the store did not answer, and the claim was not looked up within *stale_s* before.
        """


# The text of a key, or what stands for one.
Credential: TypeAlias = "str | Claim | Reference"


@dataclass(frozen=True, slots=True)
class _TextClaim:
    """The text of a key."""

    key_id: str
    hash: bytes

    def is_of(self, hashes: tuple[bytes, ...], now: datetime) -> bool:
        """Compare with two hashes, however many there are: it takes the same time."""
        del now
        first, second = (*hashes, _NO_HASH, _NO_HASH)[:2]
        # Each is compared, whatever the other gives.
        return bool(hmac.compare_digest(self.hash, first) | hmac.compare_digest(self.hash, second))


# The hashes of the secrets of keys that count, by key id.
_Hashes = Mapping[str, tuple[bytes, ...]]


class Authenticator:
    """
    Authenticates API keys. Reads each key, and the list of keys, from the store at most once a second.

    Args:
        monotonic: seconds that never go back.
        clock: the present time, timezone-aware UTC.
    """

    def __init__(
        self,
        store: ApiKeyStore,
        *,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._clock = clock
        self._uses: dict[str, datetime] = {}
        self._monotonic = monotonic
        self._cache: OrderedDict[str, tuple[ApiKey | None, float]] = OrderedDict()
        self._asking: SingleFlight[str, ApiKey | None] = SingleFlight()
        # Hashes of secrets by key id. Only valid keys get in, so invalid ones cannot evict them.
        self._valid: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()
        self._listed: tuple[_Hashes, float] = ({}, -math.inf)
        self._listing: SingleFlight[str, _Hashes] = SingleFlight()

    async def authenticate(self, text: Credential, *, stale_s: float = 0.0) -> Principal | Expired | None:
        """
        Return the principal of the key *text*; None if it is no key, or revoked.

        A claim, in place of the text, counts as long as the secret that it was made from.

        Raises:
            Unavailable: the store did not answer, and the key was not read within the last second, or
                within *stale_s* after it.
        """
        claim = await text.claim(stale_s=stale_s) if isinstance(text, Reference) else claim_of(text)
        if claim is None:
            return None
        key_id = claim.key_id
        key = await self._find(key_id, stale_s)
        now = self._clock()
        # Compared even for an unknown id, so that both take the same time.
        matches = claim.is_of(key.hashes(now) if key else (), now)
        if key is None or key.revoked_at is not None:
            self._valid.pop(key_id, None)
            return None
        if not matches:
            return None
        if key.has_expired(now):
            self._valid.pop(key_id, None)
            return Expired()
        self._remember(key, now)
        self._uses[key_id] = now
        reach = Reach(owner=key.key_id if key.own_links else None, domains=key.domains)
        return Principal(key.key_id, key.scopes, key.expires_at, reach, key.allowed_addresses, key.rate_limit)

    def forget(self, key_id: str) -> None:
        """Read the key *key_id* anew when it is next used: this process has changed it."""
        self._cache.pop(key_id, None)

    def take_uses(self) -> Mapping[str, datetime]:
        """Return when keys were last used since the last call, by their ids."""
        uses, self._uses = self._uses, {}
        return uses

    def was_valid(self, text: Credential) -> bool:
        """Return whether the key *text* was valid when it was last used; without a look-up."""
        claim = text.known() if isinstance(text, Reference) else claim_of(text)
        return _holds(self._valid, claim, self._clock())

    async def is_listed(self, text: Credential) -> bool:
        """
        Return whether the key *text* is in the list of all keys, which is at most a second old.

        It costs the store as much for any number of invalid keys as for one. False if the store does
        not answer.
        """
        try:
            claim = await text.listed() if isinstance(text, Reference) else claim_of(text)
            if claim is None:
                return False
            listed, until = self._listed
            if self._monotonic() >= until:
                listed = await self._listing.do("", self._list)
        except Unavailable:
            return False
        return _holds(listed, claim, self._clock())

    async def _list(self) -> _Hashes:
        asked = self._monotonic()
        keys = await self._store.list_keys()
        now = self._clock()
        listed = {key.key_id: key.hashes(now) for key in keys if key.revoked_at is None}
        self._listed = (listed, asked + _LIST_S)
        return listed

    def _remember(self, key: ApiKey, now: datetime) -> None:
        self._valid[key.key_id] = key.hashes(now)
        self._valid.move_to_end(key.key_id)
        if len(self._valid) > _MAX_CACHED:
            self._valid.popitem(last=False)

    async def _find(self, key_id: str, stale_s: float) -> ApiKey | None:
        known = self._cache.get(key_id)
        if known is not None and self._monotonic() < known[1]:
            return known[0]
        try:
            return await self._asking.do(key_id, lambda: self._ask(key_id))
        except Unavailable:
            if known is not None and self._monotonic() < known[1] + stale_s:
                return known[0]
            raise

    async def _ask(self, key_id: str) -> ApiKey | None:
        asked = self._monotonic()
        key = await self._store.get_key(key_id)
        self._cache[key_id] = (key, asked + _CACHE_S)
        self._cache.move_to_end(key_id)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)
        return key


def _parts(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of the key *text*; None if it is no key."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        return None
    key_id, secret, checksum = match.groups()
    is_whole = hmac.compare_digest(checksum, _checksum(text[: -_CRC_LENGTH - 1]))
    return (key_id, secret) if is_whole else None


def claim_of(text: str | Claim) -> Claim | None:
    """Return what *text* claims; None if it is no key."""
    if not isinstance(text, str):
        return text
    parts = _parts(text)
    return None if parts is None else _TextClaim(parts[0], _hash(parts[1]))


def _holds(hashes: _Hashes, claim: Claim | None, now: datetime) -> bool:
    """Return whether *hashes*, by key id, have the one of *claim*."""
    return claim is not None and claim.is_of(hashes.get(claim.key_id, ()), now)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(_CRC_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
