"""Slugs: how they are generated, and which ones a user may choose."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Slug

# Base 62 without 0 O 1 I l, which are confused when read aloud or copied by hand.
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
GENERATED_LENGTH = 7  # 57^7 ≈ 2·10¹²: at 10⁹ links a scanner hits one guess in 2,000


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many characters a chosen slug may have."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


# What a key may choose. Short slugs are few, and are the operator's to give away.
ORDINARY = Lengths(3, 64)
# What any link may have: other shorteners number their links from 1, or let people choose long names.
MOVED = Lengths(1, 128)
MAX_LENGTH = MOVED.most

_SHAPE = re.compile(rf"[A-Za-z0-9_-]{{{MOVED.least},{MOVED.most}}}\Z")

# No slug has one of these.
_PASTED = "/.,) "

# First path segments of the service: those of `app.web.routes`, and those that pages to come will have.
# Compared case-folded, so that no look-alike of a page can be claimed. A segment with a dot is no slug
# anyway, and stands here to make the list complete. `bulk` is what the API has, or will have, in the place
# of a slug: a link of that name could be visited, and not be changed.
RESERVED = frozenset(
    "api docs status console healthz readyz metrics robots.txt favicon.ico .well-known bulk".split()
)


def generate(choice: Callable[[str], str], length: int = GENERATED_LENGTH) -> Slug:
    """
    Return a random slug of *length* characters.

    Args:
        choice: picks one character of a string: `secrets.choice`, as slugs must not be guessable;
            a seeded one in tests.
    """
    return Slug("".join(choice(ALPHABET) for _ in range(length)))


def as_pasted(text: str) -> str:
    """Return *text* without what gets behind a slug when a sentence around its link is copied."""
    return text.rstrip(_PASTED)


def is_well_formed(text: str) -> bool:
    """Could *text* be a slug at all? Needs no look-up; reserved words pass."""
    return _SHAPE.match(text) is not None


def parse(text: str, lengths: Lengths = ORDINARY) -> Slug:
    """
    Return *text* as a slug that a link may get.

    Raises:
        InvalidInput: not *lengths* characters of `A-Z a-z 0-9 _ -`, or reserved.
    """
    if not is_well_formed(text) or not lengths.least <= len(text) <= lengths.most:
        wider = f" ({MOVED} in an import, or with the scope admin)" if is_well_formed(text) else ""
        message = f"must be {lengths} characters of A-Z a-z 0-9 _ -{wider}"
        raise InvalidInput([FieldError("slug", "slug_malformed", message)])
    if text.casefold() in RESERVED:
        raise InvalidInput([FieldError("slug", "slug_reserved", "is reserved")])
    return Slug(text)
