"""How far the caches lag behind the store."""

from __future__ import annotations

import asyncio

from app.domain.errors import Unavailable
from app.ports import LinkStore, OutboxDepth
from app.telemetry.samples import Samples

_PERIOD_S = 5.0


class OutboxWatch:
    """Asks how much waits in the outbox, now and then, so that a scrape asks nobody."""

    def __init__(self, store: LinkStore) -> None:
        self._store = store
        self._depth: OutboxDepth | None = None

    def samples(self) -> Samples:
        """Return the depth; nothing if it is not known, because nobody watches or the store is away."""
        if self._depth is None:
            return {}
        return {
            ("hopgate_outbox_rows", ()): [self._depth.rows],
            ("hopgate_outbox_oldest_seconds", ()): [self._depth.oldest_s],
        }

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                self._depth = await self._store.outbox_depth()
            except Unavailable:
                self._depth = None
            await asyncio.sleep(_PERIOD_S)
