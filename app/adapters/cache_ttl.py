"""How long a cached resolution lives: the same for every cache."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.link import Resolution

# Long enough to answer through an outage of the store (stale-if-error), and for a gone link
# to outlast every late write.
HARD_TTL_S = 24 * 3600.0
# Entries written together (an import, a refill) must not expire together.
JITTER = 0.1
# An absent slug is created sooner or later; and a scanner must not be able to fill the cache.
ABSENT_TTL_S = (5.0, 15.0)


def time_to_live_s(resolution: Resolution, random: Callable[[], float]) -> float:
    """
    Return how many seconds *resolution* may be cached.

    Args:
        resolution: its `expires_at` plays no part, every reader checks that itself.
        random: gives floats in [0, 1).
    """
    if resolution.version == 0:
        shortest, longest = ABSENT_TTL_S
        return shortest + (longest - shortest) * random()
    return HARD_TTL_S * (1 - JITTER + 2 * JITTER * random())
