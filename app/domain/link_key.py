"""
Keys of links: what the store, the caches and the events call a link, in one string.

The key of a link of the default domain is its slug, as it was before there were others; that of another link
begins with the id of its domain. Everything below the API and the redirect path takes keys for slugs.
"""

from __future__ import annotations

import re

from app.domain import slug as slugs
from app.domain.link import Slug

DEFAULT_ID = 0
# No slug has it, so no visitor can name a link of another domain; and it sorts after every slug.
_MARK = "~"
_AFTER_MARK = "\x7f"
# The keys of all other domains come before.
AFTER_OTHERS = _AFTER_MARK
_KEY = re.compile(rf"{_MARK}([1-9][0-9]{{0,8}}){_MARK}")
# The prefix takes its part of the column.
_LONGEST_PREFIX = 11
MAX_SLUG_LENGTH = slugs.MAX_LENGTH - _LONGEST_PREFIX


def key_of(domain_id: int, name: str) -> Slug:
    """Return the key of the link *name*: for the default domain its slug."""
    return Slug(name if domain_id == DEFAULT_ID else f"{_MARK}{domain_id}{_MARK}{name}")


def split_key(key: str) -> tuple[int, str]:
    """Return the id of the domain of *key*, and the slug that visitors see."""
    if not key.startswith(_MARK):
        return DEFAULT_ID, key
    match = _KEY.match(key)
    return (int(match[1]), key[match.end() :]) if match else (DEFAULT_ID, key)


def name_of(key: str) -> str:
    """Return the slug that visitors see."""
    return split_key(key)[1]


def is_key(text: str) -> bool:
    """Could *text* be the key of a link at all?"""
    return slugs.is_well_formed(name_of(text), slugs.ALL)


def keys_between(domain_id: int) -> tuple[str, str]:
    """
    Return the range of a domain's keys by code points: from the first string on, before the second.

    The default domain has those from `AFTER_OTHERS` on as well.
    """
    if domain_id == DEFAULT_ID:
        return "", _MARK
    prefix = f"{_MARK}{domain_id}"
    return f"{prefix}{_MARK}", f"{prefix}{_AFTER_MARK}"
