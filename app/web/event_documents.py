"""Events as other programs receive them: JSON with the link as the API shows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from app.domain.domains import DomainIndex
from app.domain.webhooks import EventFilter, LinkEvent
from app.web.schemas import LinkDocument, link_document

_encode = msgspec.json.Encoder().encode


class EventDocument(msgspec.Struct):
    """An event: what happened when, and the link as it was by then; `visits` are those of now."""

    type: str
    timestamp: datetime
    data: LinkDocument | dict[str, Any]


class EventDocuments:
    """
    Shows events of links of the domains in *index*.

    Args:
        look: brings the domains that the store has by now to *index*.
    """

    def __init__(self, index: DomainIndex, look: Callable[[], Awaitable[None]]) -> None:
        self._index = index
        self._look = look

    async def prepare(self, events: Sequence[LinkEvent]) -> None:
        """As `EventView.prepare`."""
        if not all(self._index.knows(event.link.slug) for event in events):
            await self._look()

    def passes(self, event: LinkEvent, wanted: EventFilter) -> bool:
        """As `EventView.passes`."""
        return wanted.wants(event, self._index.of(event.link.slug).host)

    def message(self, event: LinkEvent) -> bytes:
        """As `EventView.message`."""
        return _encode(EventDocument(event.kind, event.at, link_document(event.link, self._index)))


def checked_host(index: DomainIndex, text: str) -> str:
    """Return the host of the domain that *text* names; raises InvalidInput."""
    return index.served(text).host


def test_message(at: datetime) -> bytes:
    """Return the body of a test message."""
    return _encode(EventDocument("webhook.test", at, {"message": "A test, from Hopgate."}))
