"""
Requests for links that ended without a redirect: how many there were, and which slugs have no link.

Anyone can ask for any number of slugs: a process names a few a second, and counts all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from app.domain.link import Slug
from app.domain.link_key import is_key, key_of, split_key
from app.domain.visits import (
    MAX_VALUE_LENGTH,
    OTHER,
    Dimension,
    Look,
    Outcome,
    refusals_of,
    total_of_domain,
)

# Slugs, by the program that asks, that are named in the time between two flushes.
MAX_NAMED = 200


class RefusalNotes:
    """Requests without a redirect, until they are taken. All are counted; `MAX_NAMED` looks have a slug."""

    def __init__(self) -> None:
        self._named: Counter[Look] = Counter()
        # By domain and outcome, which are few.
        self._unnamed: Counter[Look] = Counter()

    def note(self, look: Look) -> None:
        """Count one request that looks like *look*."""
        if look in self._named or (_is_named(look) and len(self._named) < MAX_NAMED):
            self._named[look] += 1
        else:
            self._unnamed[_unnamed(look)] += 1

    def take(self) -> Sequence[tuple[Look, int]]:
        """Return the counts and reset them."""
        taken = [*self._unnamed.items(), *self._named.items()]
        self._named, self._unnamed = Counter(), Counter()
        return taken


def _is_named(look: Look) -> bool:
    return look.outcome is Outcome.MISSED and split_key(look.slug)[1] != ""


def _unnamed(look: Look) -> Look:
    return replace(look, slug=key_of(split_key(look.slug)[0], ""), user_agent="", objects=False)


def total_of(look: Look) -> Slug:
    """Return the total that *look* counts for."""
    return refusals_of(total_of_domain(split_key(look.slug)[0]))


def values(look: Look, *, has_name: bool) -> Sequence[tuple[Dimension, str]]:
    """Return what *look* counts as; its slug only with *has_name*, and if a link could have it."""
    outcome = (Dimension.OUTCOME, str(look.outcome))
    if look.outcome is not Outcome.MISSED:
        return (outcome,)
    name = split_key(look.slug)[1]
    # An earlier worker refuses a message with a longer value. Cut, it would be another slug.
    has_name = has_name and len(name) <= MAX_VALUE_LENGTH and is_key(look.slug)
    return outcome, (Dimension.MISSING, name if has_name else OTHER)
