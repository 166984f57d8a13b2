"""
The visit quota of links with `max_visits`: leased from the store in batches, spent in this process.

The store debits a visit before a process can spend it, so no failure makes a link give more redirects
than allowed. A process that dies loses one lease of each link at most, which is an eighth of what was
left (see `VisitQuotaStore.lease_quota`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from app.concurrency.single_flight import SingleFlight
from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.ports import VisitQuotaStore
from app.service.leases import EXHAUSTED, SPENT, LeaseBook, Leases

log = logging.getLogger(__name__)

# An exhausted quota is asked for again after this time: other processes return what they do not use.
EXHAUSTED_S = 1.0
# A lease that is unused for this long is returned, for other processes to use.
IDLE_S = 5.0
_SWEEP_S = 1.0
_CLOSE_S = 5.0


class VisitQuota:
    """
    The leases that this process holds. Belongs to one event loop.

    It holds only links that were visited within `IDLE_S`.

    Args:
        monotonic: seconds that never go back.
        leases: what it holds; a data plane spends from there as well.
    """

    def __init__(
        self, store: VisitQuotaStore, *, monotonic: Callable[[], float], leases: LeaseBook | None = None
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._leases = Leases() if leases is None else leases
        self._leasing: SingleFlight[tuple[Slug, int], bool] = SingleFlight()
        # The version that the lease of each link was made for.
        self._made_for: dict[Slug, int] = {}

    async def take(self, slug: Slug, version: int, *, spend: bool = True) -> bool:
        """
        Spend one visit of *slug*, which is at *version* or later; False if none is left.

        A lease of an earlier version is not spent: the limit may have changed since. A lease outlives
        the caller that needed it first, so a deadline of that caller loses no visits.

        Args:
            spend: False only checks that a visit is left.

        Raises:
            Unavailable: no visit is held, and the store did not answer.
        """
        while True:
            taken = self._leases.take_visit(slug, version, spend, self._monotonic())
            if taken in {SPENT, EXHAUSTED}:
                return taken == SPENT
            version = taken
            # Any number of callers wait for this lease; each checks again what is left of it.
            if not await self.lease(slug, version):
                return True

    async def lease(self, slug: Slug, version: int) -> bool:
        """
        Lease visits of *slug*, made for *version*, for all that need them; False if the link has no limit.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self._leasing.do((slug, version), partial(self._lease, slug, version))

    async def is_left(self, slug: Slug, version: int) -> bool:
        """
        Return whether `take` would find a visit of *slug*; spends none, and leases none.

        Raises:
            Unavailable: no visit is held, and the store did not answer.
        """
        taken = self._leases.take_visit(slug, version, False, self._monotonic())  # noqa: FBT003 - native
        if taken in {SPENT, EXHAUSTED}:
            return taken == SPENT
        left = await self._store.quota_left(slug)
        return left is None or left > 0

    async def run(self) -> None:
        """Return unused leases, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.give_back(idle_s=IDLE_S)

    async def give_back(self, *, idle_s: float) -> None:
        """Return what is left of every lease that was not used for *idle_s*."""
        now = self._monotonic()
        for slug in self._leases.idle_visits(now - idle_s, now):
            now = self._monotonic()
            left = self._leases.drop_idle_visits(slug, now - idle_s, now)
            if left is not None:
                await self._return(Slug(slug), left, self._made_for.pop(Slug(slug), 0))

    async def aclose(self) -> None:
        """Return all leases, as far as the store takes them within a few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.give_back(idle_s=-math.inf)

    async def _lease(self, slug: Slug, version: int) -> bool:
        """Take a new lease, made for *version*; False if the link no longer has a limit."""
        await self._drop_older(slug, version)
        leased = await self._store.lease_quota(slug)
        if leased is None:
            return False
        await self._drop_older(slug, version)
        now = self._monotonic()
        # Not `now`: the clock of a data plane may be a little behind, and would refuse the next visitor.
        exhausted_until = -math.inf if leased else now + EXHAUSTED_S
        if self._leases.add_visits(slug, version, leased, now, exhausted_until):
            self._made_for[slug] = version
        else:
            await self._return(slug, leased, version)
        return True

    async def _drop_older(self, slug: Slug, version: int) -> None:
        """Return leases made before *version*, including those made meanwhile."""
        while (left := self._leases.drop_older_visits(slug, version)) is not None:
            await self._return(slug, left, self._made_for.pop(slug, 0))

    async def _return(self, slug: Slug, visits: int, version: int) -> None:
        """Return *visits*, leased for *version*, which can no longer be spent here; tried once."""
        if not visits:
            return
        try:
            await self._store.return_quota(slug, visits, version)
        except Unavailable as error:
            log.warning("return of %d visits to a link's quota failed, they may be lost: %s", visits, error)
