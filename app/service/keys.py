"""
API keys: `hg_<id>_<secret>_<crc>`.

The checksum lets scanners and this service tell a real key from noise without a lookup. The
secret has 256 bits, so one SHA-256 at rest is enough: there is nothing to guess, and a slow
hash would let anybody burn our processor.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain.errors import FieldError, InvalidInput
from app.domain.rules import MAX_TITLE_LENGTH, UNPRINTABLE
from app.ports import ApiKey, LinkStore
from app.service.single_flight import SingleFlight

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CRC_LENGTH = 8, 43, 6  # 62^43 > 2^256, 62^6 > 2^32
_SHAPE = re.compile(
    rf"hg_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})_([0-9A-Za-z]{{{_CRC_LENGTH}}})"
)
_NO_HASH = bytes(32)
# A revoked key stops working everywhere within this time.
_CACHE_S = 1.0
_MAX_CACHED = 10_000


class Scope(StrEnum):
    """What a key may do. `admin` may do everything."""

    LINKS_READ = "links:read"
    LINKS_WRITE = "links:write"
    CACHE_WRITE = "cache:write"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: a key that exists and is not revoked."""

    key_id: str
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        """Is *scope* granted?"""
        return scope in self.scopes or Scope.ADMIN in self.scopes


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
    Make a new key; return its text, which is never seen again, and what to store.

    Args:
        name: for people, under the rule for a link's title.
        choice: picks one character of a string; pass `secrets.choice`.

    Raises:
        InvalidInput: *name* breaks it.
    """
    if len(name) > MAX_TITLE_LENGTH or UNPRINTABLE.search(name):
        message = f"must be at most {MAX_TITLE_LENGTH} printable characters"
        raise InvalidInput([FieldError("name", "name_invalid", message)])
    key_id = "".join(choice(_BASE62) for _ in range(_ID_LENGTH))
    secret = "".join(choice(_BASE62) for _ in range(_SECRET_LENGTH))
    body = f"hg_{key_id}_{secret}"
    record = ApiKey(
        key_id=key_id,
        name=name,
        secret_hash=_hash(secret),
        scopes=frozenset(str(scope) for scope in scopes),
        created_at=now,
    )
    return f"{body}_{_checksum(body)}", record


class Authenticator:
    """
    Says whose key a text is. Asks the store at most once a second for each key.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, store: LinkStore, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._cache: OrderedDict[str, tuple[ApiKey | None, float]] = OrderedDict()
        self._asking: SingleFlight[str, ApiKey | None] = SingleFlight()

    async def authenticate(self, text: str) -> Principal | None:
        """
        Return who holds the key *text*; None if it is no key, or revoked.

        Raises:
            Unavailable: the store did not answer and the answer is not known from just before.
        """
        match = _SHAPE.fullmatch(text)
        if match is None:
            return None
        key_id, secret, checksum = match.groups()
        if not hmac.compare_digest(checksum, _checksum(text[: -_CRC_LENGTH - 1])):
            return None
        key = await self._find(key_id)
        # An unknown id costs the same comparison as a wrong secret.
        matches = hmac.compare_digest(_hash(secret), key.secret_hash if key else _NO_HASH)
        if key is None or not matches or key.revoked_at is not None:
            return None
        return Principal(key.key_id, key.scopes)

    async def _find(self, key_id: str) -> ApiKey | None:
        known = self._cache.get(key_id)
        if known is not None and self._monotonic() < known[1]:
            return known[0]
        return await self._asking.do(key_id, lambda: self._ask(key_id))

    async def _ask(self, key_id: str) -> ApiKey | None:
        asked = self._monotonic()
        key = await self._store.get_key(key_id)
        self._cache[key_id] = (key, asked + _CACHE_S)
        self._cache.move_to_end(key_id)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)
        return key


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(_CRC_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
