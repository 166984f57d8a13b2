"""Compares cached entries with the store; for `hopgate check`, and for samples of changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.domain.link import Link, Resolution, Slug
from app.ports import LinkCache, LinkStore

# Slugs per read of cache and store.
_CHUNK = 500


class Fault(StrEnum):
    """How a cached entry is wrong: older than the stored link, newer, different, or of an unknown link."""

    STALE = "stale"
    AHEAD = "ahead"
    DIFFERENT = "different"
    PHANTOM = "phantom"


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """A wrong entry, with its cached and stored versions; 0 where there is no link."""

    slug: Slug
    fault: Fault
    cached: int
    stored: int


def fault_of(cached: Resolution | None, link: Link | None) -> Fault | None:
    """Return how *cached* differs from *link*; None if it is right, or nothing is cached of its epoch."""
    if cached is None or (link is not None and cached.version > 0 and cached.epoch != link.epoch):
        return None
    if link is None:
        return Fault.PHANTOM if cached.version > 0 else None
    if cached.version != link.version:
        return Fault.STALE if cached.version < link.version else Fault.AHEAD
    return None if cached == Resolution.of(link, cached.slug) else Fault.DIFFERENT


async def compare(store: LinkStore, cache: LinkCache, slugs: Sequence[Slug]) -> list[Inconsistency]:
    """
    Return the wrong entries among *slugs*. A change in progress shows as stale: compare again later.

    Raises:
        Unavailable: one of the two did not answer.
    """
    found = []
    for start in range(0, len(slugs), _CHUNK):
        chunk = slugs[start : start + _CHUNK]
        # The cache first: a write in between makes it look older than the store, never newer.
        cached = await cache.get_many(chunk)
        links = await store.get_many(chunk)
        for slug, held in cached.items():
            link = links.get(slug)
            fault = fault_of(held, link)
            if fault is not None:
                found.append(Inconsistency(slug, fault, held.version, link.version if link else 0))
    return found
