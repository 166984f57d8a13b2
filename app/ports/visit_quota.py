"""`VisitQuotaStore`: the quota of links with `max_visits`, leased to processes in blocks."""

from __future__ import annotations

from typing import Protocol

from app.domain.link import Slug

# The most visits of a link that the crash of one process loses, permanently.
MAX_QUOTA_LEASE = 64


class VisitQuotaStore(Protocol):
    """
    The visit quota. Changes no link: no version, no outbox row.

    Raises (every method): Unavailable.
    """

    async def lease_quota(self, slug: Slug) -> int | None:
        """
        Take visits of the link's `max_visits`; the caller may serve that many redirects.

        An eighth of the remainder, at least one and at most `MAX_QUOTA_LEASE`; 0 if none is left,
        or the link is removed or absent. None: the link has no limit. The sum of all leases never
        exceeds the limit in force at the time of the lease. After an error visits may be lost:
        asking again leases further ones.
        """
        ...

    async def quota_left(self, slug: Slug) -> int | None:
        """
        Return how many visits of the link's `max_visits` are not leased, and take none.

        0 if none is left, or the link is removed or absent. None: the link has no limit.
        """
        ...

    async def return_quota(self, slug: Slug, visits: int, version: int) -> None:
        """
        Give back *visits* that were leased and not spent. Never retry, whatever the outcome.

        *slug* may be one that the link had. An unknown slug is ignored, and so is a *version* before the
        first of the link: then the lease was that of another link, whose slug this one has taken over.
        """
        ...
