"""Exports: links with their spent visits, page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from app.concurrency.actors import reach
from app.domain.link import Link, Slug
from app.domain.reach import EVERYTHING
from app.ports import ExportPage, FoundPage, LinkQuery, Position
from app.service.find import reached

PAGE = 1000
# Filters may make a page expensive.
_FOUND_PAGE = 500


class Source(Protocol):
    """The part of a `Store` that an export uses; the contracts stand there."""

    async def export_page(self, *, after: int | None, limit: int) -> ExportPage:
        """As `ImportStore.export_page`."""
        ...

    async def find(self, query: LinkQuery, *, after: Position | None, limit: int, now: datetime) -> FoundPage:
        """As `FindStore.find`."""
        ...

    async def spent_visits(self, slugs: Sequence[Slug]) -> Mapping[Slug, int]:
        """As `ImportStore.spent_visits`."""
        ...


async def exported(store: Source) -> AsyncGenerator[Sequence[tuple[Link, int]], None]:
    """
    Yield every link that is not removed, oldest first, with its spent visits.

    Each page is what the store has when it is asked for: a link that is changed meanwhile is as it was
    before or after; one that is stored meanwhile comes last.

    Raises:
        Unavailable: the store did not answer; what came so far is not all.
    """
    after: int | None = None
    while True:
        page = await store.export_page(after=after, limit=PAGE)
        yield page.links
        after = page.next_after
        if after is None:
            return


async def _found(
    store: Source, query: LinkQuery, now: datetime
) -> AsyncGenerator[Sequence[tuple[Link, int]], None]:
    """Yield the links that pass *query* at *now*, in its order; the rest as `exported`."""
    after: Position | None = None
    while True:
        page = await store.find(query, after=after, limit=_FOUND_PAGE, now=now)
        spent = await store.spent_visits([link.slug for link in page.links])
        yield [(link, spent.get(link.slug, 0)) for link in page.links]
        after = page.next_after
        if after is None:
            return


async def _nothing() -> AsyncGenerator[Sequence[tuple[Link, int]], None]:
    """Yield a page without links."""
    yield ()


class Exports:
    """
    Exports, for the API.

    Args:
        clock: the present time, timezone-aware UTC.
    """

    def __init__(self, store: Source, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def pages(self, query: LinkQuery | None) -> AsyncGenerator[Sequence[tuple[Link, int]], None]:
        """Return the links that pass *query*, all for None, and that the caller reaches: see `exported`."""
        held = reach()
        if held == EVERYTHING:
            return exported(self._store) if query is None else _found(self._store, query, self._clock())
        asked = reached(held, query or LinkQuery(descending=False))
        return _nothing() if asked is None else _found(self._store, asked, self._clock())
