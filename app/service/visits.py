"""
Visits of links that have a limit: leased from the store in batches, spent in this process.

A visit is debited in the store before it can be spent, so whatever is lost on the way, more
redirects than allowed are never given. What dies with a process is lost to the link: one lease
at most, which is an eighth of what was left (see `LinkStore.lease_visits`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.ports import LinkStore
from app.service.single_flight import SingleFlight

log = logging.getLogger(__name__)

# Others may give back what they hold, so that there are none left is not true for ever.
EXHAUSTED_S = 1.0
# Who has spent none for so long gives the rest to those who can use it.
IDLE_S = 5.0
_SWEEP_S = 1.0
_CLOSE_S = 5.0


@dataclass(slots=True)
class _Lease:
    """
    What is `left` of one lease, made for `version` of the link or a later one.

    Times are monotonic seconds. Until `exhausted_until` nobody needs to ask for more.
    """

    version: int
    left: int
    used_at: float
    exhausted_until: float


class Visits:
    """
    The visits that this process holds. Belongs to one event loop.

    Remembers no more links than had a visitor within `IDLE_S`.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, store: LinkStore, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._held: dict[Slug, _Lease] = {}
        self._leasing: SingleFlight[tuple[Slug, int], bool] = SingleFlight()

    async def take(self, slug: Slug, version: int, *, spend: bool = True) -> bool:
        """
        Spend one visit of *slug*, which is at *version* or later; False if there is none left.

        What was leased for an earlier version is not spent: the limit may be another one now.

        Args:
            spend: False only makes sure that there is one.

        Raises:
            Unavailable: none is held, and the store did not answer.
        """
        while True:
            held, now = self._held.get(slug), self._monotonic()
            if held is not None and held.version >= version:
                if held.left > 0:
                    held.left -= spend
                    held.used_at = now
                    return True
                if now < held.exhausted_until:
                    return False
                version = held.version
            # However many wait for this lease, each looks again whether it is left one.
            if not await self._leasing.do((slug, version), partial(self._lease, slug, version)):
                return True

    async def run(self) -> None:
        """Give back what nobody uses, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.give_back(idle_s=IDLE_S)

    async def give_back(self, *, idle_s: float) -> None:
        """Give back what is left of every lease that nobody has used for *idle_s*."""
        for slug in list(self._held):
            held, now = self._held.get(slug), self._monotonic()
            if held is not None and now >= max(held.used_at + idle_s, held.exhausted_until):
                del self._held[slug]
                await self._return(slug, held.left)

    async def aclose(self) -> None:
        """Give back everything, as far as that is possible in a few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.give_back(idle_s=-math.inf)

    async def _lease(self, slug: Slug, version: int) -> bool:
        """Hold a new lease, made for *version*; False if the link has no limit any more."""
        await self._drop_older(slug, version)
        leased = await self._store.lease_visits(slug)
        if leased is None:
            return False
        await self._drop_older(slug, version)
        held, now = self._held.get(slug), self._monotonic()
        if held is not None and held.version > version:
            await self._return(slug, leased)
            return True
        left = leased + (held.left if held is not None else 0)
        self._held[slug] = _Lease(version, left, now, now if leased else now + EXHAUSTED_S)
        return True

    async def _drop_older(self, slug: Slug, version: int) -> None:
        """Give back what was leased before *version*, and whatever is meanwhile."""
        while (held := self._held.get(slug)) is not None and held.version < version:
            del self._held[slug]
            await self._return(slug, held.left)

    async def _return(self, slug: Slug, visits: int) -> None:
        """Give *visits* back, which nobody can spend any more; once, whatever comes of it."""
        if not visits:
            return
        try:
            await self._store.return_visits(slug, visits)
        except Unavailable as error:
            log.warning("%d visits of a link may be lost: they could not be given back, %s", visits, error)
