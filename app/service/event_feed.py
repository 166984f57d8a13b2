"""
The event stream: what is new in the log, for any number of readers in this process.

The log is in the store, so every gateway has the same events under the same ids, and a reader goes on at any
of them. One task asks for the latest position while there are readers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.domain.webhooks import EventFilter, LinkEvent
from app.ports import EventLogStore
from app.service.event_view import EventView

_POLL_S = 0.25
_PAGE = 100
_ID = re.compile(r"([0-9]{1,18})-([0-9a-f]{8})")
# The id of a log without events.
_NOTHING = "00000000"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the log: after the event at *position*, whose uid begins with *mark*."""

    position: int
    mark: str

    def __str__(self) -> str:
        return f"{self.position}-{self.mark}"


@dataclass(frozen=True, slots=True)
class Portion:
    """What a reader gets at once: events, up to *place*. `is_reset`: it may have missed some."""

    events: tuple[tuple[Place, LinkEvent], ...]
    place: Place
    is_reset: bool = False


class EventFeed:
    """
    Reads the log for clients that stay.

    Belongs to one event loop.
    """

    def __init__(self, store: EventLogStore, view: EventView) -> None:
        self._store = store
        self._view = view
        self._readers = 0
        self._last = 0
        self._changed = asyncio.Condition()
        self.view = view

    async def run(self) -> None:
        """Ask for the latest position while there are readers, until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            if self._readers:
                await self._look()

    async def aclose(self) -> None:
        """Do nothing: readers end with their connections."""

    async def read(
        self,
        wanted: EventFilter,
        last_id: str | None,
        *,
        pause_s: float,
        goes_on: Callable[[], Awaitable[bool]],
    ) -> AsyncGenerator[Portion, None]:
        """
        Give what is *wanted* after *last_id*, or from now on; after *pause_s* without any an empty portion.

        An empty *last_id* is none, as in browsers. The first portion is given at once. Ends when *goes_on*
        says so, which is asked after each portion.

        Raises:
            InvalidInput: *last_id* is no id of this stream.
        """
        self._readers += 1
        try:
            place, is_reset = await self._start(last_id)
            yield Portion((), place, is_reset)
            while await goes_on():
                try:
                    page = await self._store.events_after(place.position, limit=_PAGE)
                    await self._view.prepare(page.events)
                except Unavailable:
                    await asyncio.sleep(pause_s)
                    yield Portion((), place)
                    continue
                if page.events:
                    placed = [(Place(one.position, one.uid[:8]), one) for one in page.events]
                    place = placed[-1][0]
                    shown = tuple(pair for pair in placed if self._view.passes(pair[1], wanted))
                    if shown:
                        yield Portion(shown, place)
                    continue
                if self._last < place.position:
                    # The store went back to an earlier state; or no position was asked for yet.
                    place, is_reset = await self._started_again(place)
                    if is_reset:
                        yield Portion((), place, is_reset)
                        continue
                await self._wait(max(place.position, page.until), pause_s)
                yield Portion((), place)
        finally:
            self._readers -= 1

    async def _start(self, last_id: str | None) -> tuple[Place, bool]:
        """Return the place to start at, and whether it is another one than was asked for."""
        if last_id:
            match = _ID.fullmatch(last_id)
            if match is None:
                message = "is no id of this stream"
                raise InvalidInput([FieldError("last-event-id", "event_id_invalid", message)])
            place = Place(int(match[1]), match[2])
            if place.position == 0 or await self._mark_at(place.position) == place.mark:
                return place, False
        last = await self._store.last_event()
        return Place(last, await self._mark_at(last) or _NOTHING), bool(last_id)

    async def _started_again(self, place: Place) -> tuple[Place, bool]:
        try:
            return await self._start(str(place))
        except Unavailable:
            return place, False

    async def _mark_at(self, position: int) -> str | None:
        page = await self._store.events_after(position - 1, limit=1)
        return page.events[0].uid[:8] if page.events and page.events[0].position == position else None

    async def _wait(self, position: int, pause_s: float) -> None:
        """Wait until there is an event after *position*, for *pause_s* at most."""
        try:
            async with asyncio.timeout(pause_s), self._changed:
                await self._changed.wait_for(lambda: self._last > position)
        except TimeoutError:
            pass

    async def _look(self) -> None:
        try:
            last = await self._store.last_event()
        except Unavailable:
            return
        if last != self._last:
            self._last = last
            async with self._changed:
                self._changed.notify_all()
