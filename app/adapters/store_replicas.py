"""`LinkReplica` over PostgreSQL's streaming replicas: those that keep up, and only those."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from app.adapters.store_postgres import PostgresStore, WalPosition
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug, State
from app.ports import REPLICA_LAG_S
from app.resilience.guard import Guard

_LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class Replica:
    """One replica and its guard. What was acknowledged until `current_at` (monotonic seconds) it has."""

    store: PostgresStore
    guard: Guard
    current_at: float = field(default=-math.inf, init=False)


class Replicas:
    """
    Answers from a replica that has provably replayed what the primary had `REPLICA_LAG_S` ago.

    The proof is a comparison of positions in the write-ahead log, made every second: clocks play
    no part, and an idle primary does not look like a replica that lags. After a switch of the
    primary replicas of the old one prove nothing, until they follow the new one and have reached
    a restart point there.

    Args:
        primary: is asked for its position, and for nothing else.
        wall: unix seconds.
        random: gives floats in [0, 1), to choose among replicas.
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
        """See `LinkReplica.resolve`. Asks one replica, once."""
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
        return {slug: copy for slug, copy in copies.items() if copy.state(wall) is State.LIVE}

    async def run(self) -> None:
        """Compare positions until cancelled."""
        while True:
            await self.compare()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def compare(self) -> None:
        """Find out, now, until when each replica is current."""
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
        # If nothing is, it lags, or follows another primary.
        replica.current_at = max(proven, default=-math.inf)
