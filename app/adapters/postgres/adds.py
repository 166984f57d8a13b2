"""Batches concurrent creates: one statement, one round trip, one commit for several links."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, Connections, rows_of
from app.concurrency.actors import actor
from app.concurrency.batches import Batches
from app.concurrency.origins import origin
from app.domain.errors import Unavailable
from app.domain.link import Link, Slug
from app.domain.origin import Origin
from app.ports import Added, OutboxEvent

# Two of the pool's connections: a second batch is sent while the first is under way.
_UNDER_WAY, _MAX_BATCH = 2, 100


@dataclass(eq=False, frozen=True, slots=True)
class _Add:
    link: Link
    outcome: asyncio.Future[Added]
    origin: Origin | None
    actor: str | None


class JointAdds:
    """
    Stores single links in batches; each caller sees its own link only. Belongs to one event loop.

    A busy gateway waits for its event loop more than for the server, at every step of a
    transaction. With a connection for each create, creates would queue for connections long after
    the server had become idle.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._batches = Batches(self._insert, max_under_way=_UNDER_WAY, max_batch=_MAX_BATCH)

    async def add(self, link: Link) -> Added:
        """
        Store *link*, which is new.

        Raises:
            Unavailable: the link may or may not have been stored.
        """
        add = _Add(link, asyncio.get_running_loop().create_future(), origin(), actor())
        self._batches.add(add)
        return await add.outcome

    async def drain(self) -> None:
        """Wait until every pending create has its outcome."""
        await self._batches.drain()

    async def _insert(self, adds: Sequence[_Add]) -> None:
        # A create that was cancelled before it began is not stored.
        adds = [add for add in adds if not add.outcome.done()]
        if not adds:
            return
        links = [add.link for add in adds]
        whose = {add.link.slug: add.origin for add in reversed(adds)}
        makers = {add.link.slug: add.actor for add in reversed(adds)}
        try:
            added = await self._connections.run(lambda connection: insert(connection, links, whose, makers))
        except Exception as error:  # noqa: BLE001 - every waiting caller gets the error
            if len(adds) > 1 and not isinstance(error, Unavailable):
                # Nothing was stored. At least one link is invalid: try each alone.
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


async def insert(
    connection: Connection,
    links: Sequence[Link],
    whose: Mapping[Slug, Origin | None],
    makers: Mapping[Slug, str | None],
) -> Added:
    """Store those of *links*, all new, whose slug is free, in one statement; *whose* origins they have."""
    parameters = {
        "links": sql.links_json(links),
        "origins": sql.origins_json(whose),
        "actors": sql.actors_json(makers),
    }
    rows = await rows_of(connection, sql.INSERT_LINKS, parameters)
    events = {event.change.slug: event for event in (sql.event(*row[:4]) for row in rows)}
    epoch = rows[0][4] if rows else 0
    stored: list[OutboxEvent] = []
    outcomes: list[Link | None] = []
    for link in links:
        # Of two entries with the same slug, the first gets the event and is the one stored.
        event = events.pop(link.slug, None)
        if event is not None:
            stored.append(event)
        outcomes.append(None if event is None else replace(link, epoch=epoch))
    return Added(tuple(outcomes), tuple(stored))
