"""`LinkReplica` over the streaming replicas of PostgreSQL that are current enough."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from app.adapters.postgres.store import PostgresStore, WalPosition
from app.concurrency.guard import DependencyGuard
from app.domain.errors import Unavailable
from app.domain.link import LinkState, Resolution, Slug
from app.ports import REPLICA_LAG_S

_LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class Replica:
    """A replica and its guard. It has every change acknowledged before `current_at` (monotonic seconds)."""

    store: PostgresStore
    guard: DependencyGuard
    current_at: float = field(default=-math.inf, init=False)


class Replicas:
    """
    Answers from a replica that has provably replayed the primary's state of `REPLICA_LAG_S` ago.

    The proof compares positions in the write-ahead log, every second: it needs no synchronised
    clocks, and a replica of an idle primary does not seem to lag. After a failover, replicas of
    the old primary are not used until they follow the new one and have reached a restart point
    there.

    Args:
        primary: the source of positions; no link is read from it.
        wall: unix seconds.
        random: returns floats in [0, 1), to choose among replicas.
    """

    def __init__(
        self,
        primary: PostgresStore,
        replicas: Sequence[Replica],
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._primary = primary
        self._replicas = replicas
        self._monotonic = monotonic
        self._wall = wall
        self._random = random
        self._positions: deque[tuple[float, WalPosition]] = deque(maxlen=round(REPLICA_LAG_S / _LOOK_EVERY_S))

    async def resolve(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """Call one replica, once."""
        since = self._monotonic() - REPLICA_LAG_S
        current = [replica for replica in self._replicas if replica.current_at >= since]
        if not current:
            return {}
        replica = current[int(self._random() * len(current))]
        try:
            copies = await replica.guard.call(lambda: replica.store.resolve(slugs))
        except Unavailable:
            return {}
        wall = self._wall()
        return {slug: copy for slug, copy in copies.items() if copy.state(wall) is LinkState.LIVE}

    async def run(self) -> None:
        """Compare positions until cancelled."""
        while True:
            await self.compare()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def compare(self) -> None:
        """Update `current_at` of each replica."""
        asked_at = self._monotonic()
        with suppress(Unavailable):
            position = await self._primary.wal_position()
            if not position.is_standby:
                self._positions.append((asked_at, position))
        await asyncio.gather(*map(self._compare, self._replicas))

    async def _compare(self, replica: Replica) -> None:
        try:
            reached = await replica.store.wal_position()
        except Unavailable:
            return
        if not reached.is_standby or not self._positions:
            return
        timeline = self._positions[-1][1].timeline
        proven = [
            asked_at
            for asked_at, position in self._positions
            if position.timeline == timeline == reached.timeline and position.lsn <= reached.lsn
        ]
        # None: it lags, or follows another primary.
        replica.current_at = max(proven, default=-math.inf)
