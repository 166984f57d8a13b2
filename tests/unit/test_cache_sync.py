"""`CacheSync` and `ClickConsumer` refuse events that they do not handle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.domain.errors import UnexpectedEvent
from app.domain.events import ClicksCounted, LinkChanged, LinksMissed, WorkQueue
from app.domain.link import LinkFields, NewLink, Slug
from app.ports import Store
from app.service.cache_sync import CacheSync
from app.wire import dead_queue
from worker.clicks import ClickConsumer

SLUG = Slug("abc")
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
CHANGED, MISSED = LinkChanged(SLUG, 1), LinksMissed((SLUG,))
COUNTED = ClicksCounted("0" * 32, NOW, {SLUG: 1})


class LinkExpired:
    """A kind of event that a later release may have."""


async def test_cache_sync_refuses_clicks(embedded_store: Store) -> None:
    sync = CacheSync(embedded_store, MemoryCache(), InProcessBus())

    with pytest.raises(UnexpectedEvent, match=r"hopgate\.cache does not handle ClicksCounted"):
        await sync.apply([CHANGED, COUNTED])


@pytest.mark.parametrize("event", [CHANGED, MISSED])
async def test_click_consumer_refuses_cache_events(embedded_store: Store, event: Any) -> None:
    with pytest.raises(UnexpectedEvent, match=r"hopgate\.clicks does not handle"):
        await ClickConsumer(embedded_store, clock=lambda: NOW).handle([event])


async def test_event_ahead_of_the_store_announces_what_the_store_has(embedded_store: Store) -> None:
    """After the store went back: the version of the event would keep gateways from the caches."""
    fields = LinkFields(long_url="https://example.com/")
    await embedded_store.add([NewLink(slug=SLUG, fields=fields)], now=NOW)
    heard: list[LinkChanged] = []

    class Listener:
        def on_changes(self, changes: Sequence[LinkChanged]) -> None:
            heard.extend(changes)

        def on_gap(self) -> None: ...

    bus = InProcessBus()
    await bus.listen(Listener())
    await CacheSync(embedded_store, MemoryCache(), bus).apply(
        [LinkChanged(SLUG, 5), LinkChanged(Slug("lost"), 1)]
    )

    assert heard == [LinkChanged(SLUG, 1)]
    await bus.aclose()


async def test_unknown_kind_of_event_is_an_error(embedded_store: Store) -> None:
    unknown: Any = LinkExpired()

    with pytest.raises(AssertionError, match="LinkExpired"):
        await CacheSync(embedded_store, MemoryCache(), InProcessBus()).apply([unknown])
    with pytest.raises(UnexpectedEvent, match="LinkExpired"):
        await ClickConsumer(embedded_store, clock=lambda: NOW).handle([unknown])


async def test_unexpected_event_becomes_a_dead_letter(embedded_store: Store) -> None:
    """It is never acknowledged as if it had been applied."""

    async def no_delay(_: float) -> None:
        await asyncio.sleep(0)

    bus = InProcessBus(sleep=no_delay)
    await bus.consume(WorkQueue.CLICKS, CacheSync(embedded_store, MemoryCache(), bus).apply)

    await bus.publish([COUNTED])

    async with asyncio.timeout(5):
        while not (await bus.depths())[dead_queue(WorkQueue.CLICKS)]:
            await asyncio.sleep(0)
    await bus.aclose()
