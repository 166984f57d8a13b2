"""
Listings of links in SQLite, on a thread and a connection of their own: they take milliseconds.

A filter that few links pass is answered by its own index, and the few are sorted. One that many pass is best
checked while walking the index of the sort: a page is full after a few rows. SQLite does not know which is
which, so the indexes of the filters are probed, up to some thousands. A walk is of bounded effort, as those
that pass may be far from its beginning; then the many are gathered after all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

import apsw

from app.adapters.find_order import Effort, position
from app.adapters.sqlite import find_sql, sql
from app.adapters.sqlite.writer import translated
from app.concurrency.time_limit import left_s
from app.domain.errors import Unavailable
from app.ports import FoundPage, LinkQuery, LinkSort, Position, TagCount, Totals
from app.resilience.deadline import ADMIN_S

_T = TypeVar("_T")

# Instructions of SQLite's virtual machine between two looks at the clock: well below a millisecond.
_INSTRUCTIONS = 2000
# Walks are bounded in instructions: about ten milliseconds, and what it may take if the alternative is worse.
EFFORT = Effort(few=4000, many=40_000, walked=100_000, long_walked=3_000_000)
# Trigrams that this many links have are not looked up if there are rarer ones.
_COMMON = 4000
_MOST_TRIGRAMS = 4


class Finder:
    """Made with a connection that it owns, closed with `aclose`. Belongs to one event loop."""

    def __init__(self, db: apsw.Connection, effort: Effort = EFFORT) -> None:
        self._db = db
        self._effort = effort
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

        def work() -> int:
            values = find_sql.bindings(query, None) | {"now": sql.micros(now)}
            values["match"] = self._match(query.terms)
            drivers = find_sql.drivers(query)
            driver = self._best(drivers, values, self._effort.many)[1] if drivers else None
            [(found,)] = self._rows(find_sql.counting(query, driver), values)
            return int(found)

        return await self._in_time(work, limit_s)

    async def totals(self, limit_s: float) -> Totals | None:
        """Add up all links: see `FindStore.totals`."""

        def work() -> Totals:
            [row] = self._rows(find_sql.TOTALS, {})
            return Totals(*row)

        return await self._in_time(work, limit_s)

    async def read(self, work: Callable[[apsw.Connection], _T], limit_s: float) -> _T:
        """Return what *work* finds by queries that may go through many rows."""
        return await self._run(lambda: work(self._db), limit_s)

    async def _in_time(self, work: Callable[[], _T], limit_s: float) -> _T | None:
        end = time.monotonic() + limit_s
        try:
            return await self._run(work, limit_s)
        except Unavailable:
            if self._is_closed or time.monotonic() < end:
                raise
            return None

    async def tags(self, after: str | None, limit: int, among: LinkQuery) -> list[TagCount]:
        """Return tags of links that pass *among*: see `FindStore.tags`."""

        def work() -> list[TagCount]:
            values = {**find_sql.bindings(among, None), "after": after, "limit": limit}
            rows = sql.rows(self._db, find_sql.select_tags(among, first=after is None), values)
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
            return self._walk(find_sql.walks(query, after), values)
        values["match"] = self._match(query.terms)
        few, many, walked, long_walked = self._effort
        size, best = self._best(drivers, values, few)
        has_order = best.ordered and query.sort is LinkSort.STORED
        if size > few and not has_order:
            size, best = self._best(drivers, values, many)
            most = long_walked if size > many else walked
            rows = self._walked(find_sql.walks(query, after), values, most)
            if rows is not None:
                return rows
        return self._rows(find_sql.gather(query, after, best), values)

    def _walk(self, statements: list[str], values: dict[str, Any]) -> list[sql.Row]:
        """Return the rows of *statements*, one after the other, until there are enough."""
        rows: list[sql.Row] = []
        with self._db:  # all of one moment
            for statement in statements:
                rows += self._rows(statement, {**values, "wanted": values["wanted"] - len(rows)})
                if len(rows) == values["wanted"]:
                    break
        return rows

    def _walked(self, statements: list[str], values: dict[str, Any], most: int) -> list[sql.Row] | None:
        """Return the rows of *statements*; None if that takes more than *most* instructions."""
        done, step = 0, min(_INSTRUCTIONS, most)

        def is_over() -> bool:
            nonlocal done
            done += step
            return done > most

        self._db.set_progress_handler(is_over, step, id="walk")
        try:
            return self._walk(statements, values)
        except apsw.InterruptError:
            if done > most:
                return None
            raise
        finally:
            self._db.set_progress_handler(None, id="walk")

    def _best(
        self, drivers: list[find_sql.Driver], values: dict[str, Any], most: int
    ) -> tuple[int, find_sql.Driver]:
        """Return the index with the fewest ids, and how many; all with over *most* are alike."""
        sizes = [
            (self._rows(find_sql.probe(driver, most + 1), values)[0][0], not driver.ordered, place)
            for place, driver in enumerate(drivers)
        ]
        size, _, place = min(sizes)
        return size, drivers[place]

    def _match(self, terms: tuple[str, ...]) -> str:
        """Return the full-text query of links that may have *terms*: by their rarest trigrams."""
        trigrams = find_sql.trigrams_of(terms)
        sizes = [
            (self._rows(find_sql.PROBE_TRIGRAM, {"match": find_sql.match([one]), "most": _COMMON})[0][0], one)
            for one in trigrams
        ]
        rare = [one for size, one in sorted(sizes) if size < _COMMON]
        return find_sql.match(rare[:_MOST_TRIGRAMS] or trigrams)

    def _rows(self, statement: str, values: dict[str, Any]) -> list[sql.Row]:
        return sql.rows(self._db, statement, values)
