"""Slugs: how they are made, and which ones a user may choose."""

from __future__ import annotations

import re
from collections.abc import Callable

from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Slug

# Base 62 without 0 O 1 I l: read aloud or copied by hand, these are taken for each other.
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
GENERATED_LENGTH = 7  # 57^7 ≈ 2·10¹²: at 10⁹ links a scanner hits one guess in 2,000

MIN_LENGTH, MAX_LENGTH = 3, 64
_SHAPE = re.compile(rf"[A-Za-z0-9_-]{{{MIN_LENGTH},{MAX_LENGTH}}}\Z")

# First path segments that belong to the service or to conventions of the web. Compared
# case-folded, so that no look-alike of a route can be taken.
RESERVED = frozenset(
    """
    about admin api apple-app-site-association assetlinks auth dashboard docs favicon health
    healthz help hopgate livez login logout metrics openapi ping privacy readyz robots
    security settings sitemap static status terms well-known
    """.split()
)


def generate(choice: Callable[[str], str], length: int = GENERATED_LENGTH) -> Slug:
    """
    Return a random slug of *length* characters.

    Args:
        choice: picks one character of a string; pass `secrets.choice` (slugs must not be
            guessable), a seeded one in tests.
    """
    return Slug("".join(choice(ALPHABET) for _ in range(length)))


def is_well_formed(text: str) -> bool:
    """Could *text* be a slug at all? Costs no lookup; reserved words pass."""
    return _SHAPE.match(text) is not None


def parse(text: str) -> Slug:
    """
    Return *text* as a slug a user may claim.

    Raises:
        InvalidInput: not 3–64 characters of `A-Z a-z 0-9 _ -`, or reserved.
    """
    if not is_well_formed(text):
        message = f"must be {MIN_LENGTH} to {MAX_LENGTH} characters of A-Z a-z 0-9 _ -"
        raise InvalidInput([FieldError("slug", "slug_malformed", message)])
    if text.casefold().strip("_-") in RESERVED:
        raise InvalidInput([FieldError("slug", "slug_reserved", "is reserved")])
    return Slug(text)
