"""
The epoch of a PostgreSQL store: it changes when the links go back to an earlier state.

The epoch stands in a row of the database, beside the identity of what it was given to: the server, its
timeline, the database and the table of links. A failover or a point-in-time recovery starts another
timeline; a dump is restored into another table, with the row of its time; a copied database is another
one. In each case the row does not name the place where it stands, and the first process that looks gives
a new epoch.

A server put back by its files (a snapshot of a volume) keeps its identity. Its log is then shorter than it
was, which a process that watched it before notices.
"""

from __future__ import annotations

from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, Connections, rows_of


class EpochReader:
    """
    Reads the epoch, and gives a new one to links that went back.

    Args:
        reading, writing: the connections for each.
    """

    def __init__(self, reading: Connections, writing: Connections) -> None:
        self._reading = reading
        self._writing = writing
        self._epoch = -1
        # What the log of that epoch had reached at least.
        self._position = 0

    async def read(self) -> int:
        """Return the present epoch. Raises Unavailable."""
        epoch, is_here, position = await self._reading.run(_select)
        if not is_here or (epoch == self._epoch and position < self._position):
            seen = {"seen_epoch": self._epoch, "seen_position": self._position}
            raised = await self._writing.run(lambda connection: rows_of(connection, sql.RAISE_EPOCH, seen))
            # None: another process was faster.
            epoch, _, position = raised[0] if raised else await self._reading.run(_select)
        self._epoch, self._position = epoch, position
        return epoch


async def _select(connection: Connection) -> tuple[int, bool, int]:
    [(epoch, is_here, position)] = await rows_of(connection, sql.SELECT_EPOCH, {})
    return epoch, is_here, position
