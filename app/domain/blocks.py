"""
Blocks: hosts and slugs that no redirect leads to or comes from.

A blocked host stands for itself and all its subdomains. Every spelling of a host (upper case, a dot at
its end, Unicode or Punycode, any notation of an address) has one form that is stored and compared.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import ada_url

from app.domain import slug as slugs
from app.domain.errors import FieldError, InvalidInput
from app.domain.own_hosts import site

MAX_HOST_LENGTH = 253
# As it is typed: Unicode is shorter than its Punycode, and more is not worth a parser's time.
_MAX_TYPED = 1000
# Fields of a mail that hold addresses (RFC 6068).
_MAIL_ADDRESSES = frozenset({"to", "cc", "bcc"})
_MAX_LABEL = 63
# The parser of URLs drops or decodes these.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\%\u2028\u2029\ufeff\ud800-\udfff]")
# What stands around a host in a URL, and in the lists of advertisement blockers.
_AROUND = re.compile(r"[/?#@:|^$,]")
_AUTHORITY = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(\[[^\]/?#]*\]|[^/?#:]*)")


class BlockKind(StrEnum):
    """What a block names."""

    HOST = "host"
    SLUG = "slug"


@dataclass(frozen=True, slots=True)
class Block:
    """A blocked host or slug; *value* is in the form that is compared (see `blocked_host`)."""

    kind: BlockKind
    value: str


@dataclass(frozen=True, slots=True)
class BlockChange:
    """
    A block as it stands after the change *version*; `is_removed`: it holds no more.

    Each change of the set of blocks has a version of its own, and later ones are larger.
    """

    block: Block
    version: int
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block that holds since `created_at`, timezone-aware UTC."""

    block: Block
    created_at: datetime


class BlockIndex:
    """The blocks in memory: a look-up by each suffix of a host, not a scan."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.hosts: set[str] = set()
        self.slugs: set[str] = set()
        # Where slugs have no case, a block holds for every spelling.
        self._lowered: Counter[str] = Counter()
        for block in blocks:
            self.add(block)

    def add(self, block: Block) -> None:
        """Block *block*."""
        if block.kind is BlockKind.SLUG and block.value not in self.slugs:
            self._lowered[slugs.canonical(block.value, ignoring_case=True)] += 1
        self._of(block.kind).add(block.value)

    def discard(self, block: Block) -> None:
        """Unblock *block*."""
        if block.kind is BlockKind.SLUG and block.value in self.slugs:
            self._lowered[slugs.canonical(block.value, ignoring_case=True)] -= 1
        self._of(block.kind).discard(block.value)

    def replace(self, other: BlockIndex) -> None:
        """Hold what *other* holds, all at once."""
        self.hosts, self.slugs, self._lowered = other.hosts, other.slugs, other._lowered

    def blocks(self) -> list[Block]:
        """Return all blocks."""
        return [
            *(Block(BlockKind.HOST, host) for host in self.hosts),
            *(Block(BlockKind.SLUG, slug) for slug in self.slugs),
        ]

    def has_host(self, url: str) -> bool:
        """Does the target *url*, in canonical form, lead to a blocked host?"""
        return bool(self.hosts) and any(map(self._is_blocked, hosts_of(url)))

    def has_slug(self, slug: str, *, ignoring_case: bool = False) -> bool:
        """Is *slug* blocked? *ignoring_case*: or another spelling of it."""
        if slug in self.slugs:
            return True
        return ignoring_case and self._lowered[slugs.canonical(slug, ignoring_case=True)] > 0

    def __len__(self) -> int:
        """Return how many blocks there are."""
        return len(self.hosts) + len(self.slugs)

    def _is_blocked(self, host: str) -> bool:
        hosts, suffix = self.hosts, host
        while suffix not in hosts:
            _, dot, suffix = suffix.partition(".")
            if not dot:
                return False
        return True

    def _of(self, kind: BlockKind) -> set[str]:
        return self.hosts if kind is BlockKind.HOST else self.slugs


def blocked_host(text: str) -> Block:
    """
    Return the block of the host *text*, and of its subdomains.

    Raises:
        InvalidInput: it is no host, or has more around it; one error for the field `hosts`.
    """
    if "*" in text:
        # Browsers take it for a character of a name, so the block would hold for a host that no server has.
        raise _invalid("hosts", "host_wildcard", text, "has a wildcard: a block holds for subdomains anyway")
    if _FORBIDDEN.search(text) or not text or len(text) > _MAX_TYPED:
        raise _invalid("hosts", "host_invalid", text, "is no host")
    authority = _bracketed(text)
    if authority[0] != "[" and _AROUND.search(authority):
        raise _invalid("hosts", "host_not_alone", text, "is more than a host: name the host alone")
    try:
        host = site(ada_url.parse_url(f"http://{authority}/", ("hostname",))["hostname"])
    except ValueError:
        raise _invalid("hosts", "host_invalid", text, "is no host") from None
    is_address = host.startswith("[")
    labels = host.split(".")
    if len(host) > MAX_HOST_LENGTH or not (
        is_address or all(1 <= len(label) <= _MAX_LABEL for label in labels)
    ):
        raise _invalid("hosts", "host_invalid", text, "is no host")
    return Block(BlockKind.HOST, host)


def blocked_slug(text: str) -> Block:
    """
    Return the block of *text*.

    Raises:
        InvalidInput: no link can have this slug; one error for the field `slugs`.
    """
    name = slugs.canonical(text)
    if not slugs.is_well_formed(name, slugs.ALL):
        raise _invalid("slugs", "slug_invalid", text, "is no slug")
    return Block(BlockKind.SLUG, name)


def hosts_of(url: str) -> Iterable[str]:
    """Return the hosts that the target *url*, in canonical form, leads to, as they are compared."""
    match = _AUTHORITY.match(url)
    if match is not None:
        if url.startswith(("http:", "https:")):
            return (site(match[1]),)
        return _canonical(match[1])
    if url.startswith("mailto:"):
        to, _, fields = url.removeprefix("mailto:").partition("?")
        named = (field.partition("=") for field in fields.split("&"))
        copies = [value for name, _, value in named if name.lower() in _MAIL_ADDRESSES]
        addresses = [address for part in (to, *copies) for address in part.split(",")]
        return [host for address in addresses for host in _canonical(address.rpartition("@")[2])]
    return ()


def _canonical(host: str) -> Iterable[str]:
    """Return *host* of a scheme whose hosts the parser leaves as they are written."""
    try:
        return (blocked_host(host).value,)
    except InvalidInput:
        return (host.lower(),) if host else ()


def _bracketed(text: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(text)}]" if ":" in text else text
    except ValueError:
        return text


def _invalid(field: str, code: str, text: str, problem: str) -> InvalidInput:
    shown = text if len(text) <= 80 else f"{text[:80]}…"
    return InvalidInput([FieldError(field, code, f"{shown!r} {problem}")])
