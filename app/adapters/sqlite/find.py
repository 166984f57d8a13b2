"""
Listings of links in SQLite, on a thread and a connection of their own: they take milliseconds.

A filter that many links pass is best checked while walking the index of the sort: a page is full after a few
rows. A filter that few pass is best answered by its own index. Nothing knows in advance which it is, so a
walk of bounded effort comes first, and what it does not fill is gathered, beginning with the index that has
the fewest links.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

import apsw

from app.adapters.find_order import position
from app.adapters.sqlite import find_sql, sql
from app.adapters.sqlite.writer import translated
from app.concurrency.time_limit import left_s
from app.domain.errors import Unavailable
from app.ports import FoundPage, LinkQuery, Position, TagCount
from app.resilience.deadline import ADMIN_S

_T = TypeVar("_T")

# Instructions of SQLite's virtual machine between two looks at the clock: well below a millisecond.
_INSTRUCTIONS = 2000
# What a bounded walk may take: about ten milliseconds.
WALK_INSTRUCTIONS = 200_000
# Ids up to which the indexes of filters are compared.
_MOST_PROBED = 10_001


class Finder:
    """
    Made with a connection that it owns, closed with `aclose`. Belongs to one event loop.

    Args:
        walk_instructions: of SQLite's virtual machine, that a bounded walk may take; 0: gather at once.
    """

    def __init__(self, db: apsw.Connection, *, walk_instructions: int = WALK_INSTRUCTIONS) -> None:
        self._db = db
        self._walk_instructions = walk_instructions
        self._thread = ThreadPoolExecutor(1, "hopgate-sqlite-find")
        self._is_closed = False

    async def find(self, query: LinkQuery, after: Position | None, limit: int, now: datetime) -> FoundPage:
        """Return a page: see `FindStore.find`."""

        def work() -> FoundPage:
            values = find_sql.bindings(query, after) | {"now": sql.micros(now), "wanted": limit + 1}
            rows = self._page(query, after, values)
            links = [sql.link(row) for row in rows[:limit]]
            next_after = position(query, links[-1], rows[limit - 1][-1]) if len(rows) > limit else None
            return FoundPage(tuple(links), next_after)

        return await self._run(work, ADMIN_S)

    async def count(self, query: LinkQuery, now: datetime, limit_s: float) -> int | None:
        """Return how many links pass: see `FindStore.count`."""
        end = time.monotonic() + limit_s

        def work() -> int | None:
            values = find_sql.bindings(query, None) | {"now": sql.micros(now)}
            drivers = find_sql.drivers(query)
            driver = self._best(drivers, values) if drivers else None
            [(found,)] = self._rows(find_sql.counting(query, driver), values)
            return int(found)

        try:
            return await self._run(work, limit_s)
        except Unavailable:
            if self._is_closed or time.monotonic() < end:
                raise
            return None

    async def tags(self, after: str | None, limit: int) -> list[TagCount]:
        """Return tags: see `FindStore.tags`."""

        def work() -> list[TagCount]:
            if after is None:
                rows = sql.rows(self._db, find_sql.SELECT_FIRST_TAGS, (limit,))
            else:
                rows = sql.rows(self._db, find_sql.SELECT_TAGS, (after, limit))
            return [TagCount(*row) for row in rows]

        return await self._run(work, ADMIN_S)

    async def aclose(self) -> None:
        """End what is under way, then close the connection."""
        self._is_closed = True
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._db.close()

    async def _run(self, work: Callable[[], _T], limit_s: float) -> _T:
        """Return the result of *work*, which is interrupted at the deadline of the request."""
        if self._is_closed:
            raise Unavailable("sqlite", "the store is closed")
        now = time.monotonic()
        end = now + min(limit_s, left_s(now))

        def bounded() -> _T:
            self._db.set_progress_handler(
                lambda: self._is_closed or time.monotonic() > end, _INSTRUCTIONS, id="deadline"
            )
            # Also what waited for the thread too long.
            if self._is_closed or time.monotonic() > end:
                raise Unavailable("sqlite", "other listings took the time of this one")
            return work()

        try:
            with translated():
                return await asyncio.get_running_loop().run_in_executor(self._thread, bounded)
        except asyncio.CancelledError:
            end = 0.0
            raise

    def _page(self, query: LinkQuery, after: Position | None, values: dict[str, Any]) -> list[sql.Row]:
        drivers = find_sql.drivers(query)
        if not drivers:
            return self._rows(find_sql.walk(query, after), values)
        if query.long_url is None and self._walk_instructions:
            rows = self._walked(find_sql.walk(query, after), values)
            if rows is not None:
                return rows
        return self._rows(find_sql.gather(query, after, self._best(drivers, values)), values)

    def _walked(self, statement: str, values: dict[str, Any]) -> list[sql.Row] | None:
        """Return the rows of *statement*; None if that is too much effort for a bounded walk."""
        calls = 0

        def is_over() -> bool:
            nonlocal calls
            calls += 1
            return calls * _INSTRUCTIONS > self._walk_instructions

        self._db.set_progress_handler(is_over, _INSTRUCTIONS, id="walk")
        try:
            return self._rows(statement, values)
        except apsw.InterruptError:
            if calls * _INSTRUCTIONS > self._walk_instructions:
                return None
            raise
        finally:
            self._db.set_progress_handler(None, id="walk")

    def _best(self, drivers: list[find_sql.Driver], values: dict[str, Any]) -> find_sql.Driver:
        """Return the index with the fewest ids; of those that have many, one in the order of ids."""
        if len(drivers) == 1:
            return drivers[0]
        sizes = [
            (self._rows(find_sql.probe(driver, _MOST_PROBED), values)[0][0], not driver.ordered, place)
            for place, driver in enumerate(drivers)
        ]
        return drivers[min(sizes)[-1]]

    def _rows(self, statement: str, values: dict[str, Any]) -> list[sql.Row]:
        return sql.rows(self._db, statement, values)
