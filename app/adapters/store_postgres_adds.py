"""New links that come together are stored together: one statement, one round trip, one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.adapters import store_postgres_sql as sql
from app.adapters.store_postgres_pool import Connection, Connections, rows_of
from app.domain.errors import Unavailable
from app.domain.link import Link
from app.ports import Added, OutboxEvent
from app.resilience.batches import Batches

# Two of the pool's connections: while one batch is on its way, the next one is.
_UNDER_WAY, _MAX_BATCH = 2, 100


@dataclass(eq=False, frozen=True, slots=True)
class _Add:
    link: Link
    outcome: asyncio.Future[Added]


class JointAdds:
    """
    Stores links one by one, as far as each caller can see. Belongs to one event loop.

    A busy gateway waits for its own event loop more than for the server, at each step of each
    conversation; so creates that had connections of their own would wait for those, and not get
    them until long after the server was ready.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._batches = Batches(self._insert, max_under_way=_UNDER_WAY, max_batch=_MAX_BATCH)

    async def add(self, link: Link) -> Added:
        """
        Store *link*, which is new.

        Raises:
            Unavailable: it may or may not have been stored.
        """
        add = _Add(link, asyncio.get_running_loop().create_future())
        self._batches.add(add)
        return await add.outcome

    async def drain(self) -> None:
        """Wait until everybody has an answer."""
        await self._batches.drain()

    async def _insert(self, adds: Sequence[_Add]) -> None:
        # Who went away before it began wants no link.
        adds = [add for add in adds if not add.outcome.done()]
        if not adds:
            return
        links = [add.link for add in adds]
        try:
            added = await self._connections.run(lambda connection: insert(connection, links))
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
            if len(adds) > 1 and not isinstance(error, Unavailable):
                # Nothing was stored. One of them cannot be: the others are not to blame.
                for add in adds:
                    await self._insert([add])
                return
            for add in adds:
                if not add.outcome.done():
                    add.outcome.set_exception(error)
            return
        events = iter(added.events)
        for add, link in zip(adds, added.links, strict=True):
            event = () if link is None else (next(events),)
            if not add.outcome.done():
                add.outcome.set_result(Added((link,), event))


async def insert(connection: Connection, links: Sequence[Link]) -> Added:
    """Store those of *links*, all new, whose slug is free, in one statement."""
    rows = await rows_of(connection, sql.INSERT_LINKS, {"links": sql.links_json(links)})
    events = {event.change.slug: event for event in (sql.event(*row) for row in rows)}
    stored: list[OutboxEvent] = []
    outcomes: list[Link | None] = []
    for link in links:
        # Of two entries with the same slug, the first takes the event, so the link is its.
        event = events.pop(link.slug, None)
        if event is not None:
            stored.append(event)
        outcomes.append(None if event is None else link)
    return Added(tuple(outcomes), tuple(stored))
