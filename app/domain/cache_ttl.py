"""How long a resolution is cached, and what counts as a large one: the same for every cache."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.link import Resolution

# Long enough to serve through an outage of the store (stale-if-error), and for the entry of a gone
# link to outlive every late write.
HARD_TTL_S = 24 * 3600.0
# Entries written together (an import, a refill) must not expire together.
JITTER = 0.1
# Negative cache: an absent slug may be created soon, and a scanner must not fill the cache.
ABSENT_TTL_S = (5.0, 15.0)
# Characters of a target. Longer ones are rare, and a cache in memory holds a bounded number of them: an
# entry may then be forty times as large as most.
LONG_TARGET = 2048


def time_to_live_s(resolution: Resolution, random: Callable[[], float]) -> float:
    """
    Return how many seconds *resolution* may be cached.

    Args:
        resolution: its `expires_at` is ignored, as every reader checks it.
        random: returns floats in [0, 1).
    """
    if resolution.version == 0:
        shortest, longest = ABSENT_TTL_S
        return shortest + (longest - shortest) * random()
    return HARD_TTL_S * (1 - JITTER + 2 * JITTER * random())


def is_large(resolution: Resolution) -> bool:
    """Are the targets of *resolution* longer than `LONG_TARGET`?"""
    return len(resolution.long_url or "") + len(resolution.expired_url or "") > LONG_TARGET
