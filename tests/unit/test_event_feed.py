"""The event stream over a store that goes back to an earlier state."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from app.domain.domains import DomainIndex
from app.domain.link import Link, LinkFields, Slug
from app.domain.webhooks import EventFilter, EventKind, LinkEvent
from app.ports import EventPage
from app.service.event_feed import EventFeed
from app.web.event_documents import EventDocuments
from tests.conftest import NOW

LINK = Link(
    slug=Slug("s"),
    fields=LinkFields(long_url="https://example.com/"),
    version=1,
    created_at=NOW,
    updated_at=NOW,
)


class Log:
    """As much of a store as the feed asks."""

    def __init__(self) -> None:
        self.events: list[LinkEvent] = []

    def append(self, uid: str) -> None:
        position = len(self.events) + 1
        self.events.append(LinkEvent(position=position, uid=uid, kind=EventKind.CREATED, at=NOW, link=LINK))

    async def events_after(self, position, *, limit):
        found = tuple(self.events[position:][:limit])
        return EventPage(found, found[-1].position if found else position)

    async def last_event(self):
        return len(self.events)


async def nothing() -> None: ...


async def test_reader_is_told_that_the_store_went_back():
    """Positions of what was lost are given to other events, which the reader would never get."""
    log = Log()
    for number in range(3):
        log.append(f"{number}" * 8)
    feed = EventFeed(log, EventDocuments(DomainIndex("https://hop.example"), nothing))  # type: ignore[arg-type]
    polling = asyncio.create_task(feed.run())

    async def goes_on() -> bool:
        return True

    async with aclosing(feed.read(EventFilter(), "3-22222222", pause_s=0.05, goes_on=goes_on)) as portions:
        assert not (await anext(portions)).is_reset
        assert not (await anext(portions)).is_reset
        log.events = log.events[:1]
        async with asyncio.timeout(10):
            reset = await anext(portion async for portion in portions if portion.is_reset)
            assert str(reset.place) == "1-00000000"
            log.append("aaaaaaaa")
            events = await anext(portion.events async for portion in portions if portion.events)
    assert [event.uid for _, event in events] == ["aaaaaaaa"]

    polling.cancel()
    with suppress(asyncio.CancelledError):
        await polling
