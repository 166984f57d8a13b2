"""Links of another epoch: the L1 cache, the resolver and the watch."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from msgspec.structs import replace

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.service import epochs
from app.service.epochs import EpochWatch
from app.service.l1_cache import L1Cache
from tests.conftest import ManualTime
from tests.unit.services import resolver

SLUG = Slug("aaa")
LOST, TRUE = Resolution(SLUG, 5, "https://l.example/"), Resolution(SLUG, 2, "https://t.example/", epoch=9)


@pytest.fixture
def l1(monotonic: ManualTime) -> L1Cache[int]:
    return L1Cache(lambda resolution, _: resolution.version, monotonic=monotonic, wall=lambda: 0.0)


class Truth:
    """A store that answers one link and an epoch, or nothing."""

    def __init__(self, link: Resolution, epoch: int) -> None:
        self.link = link
        self.number = epoch
        self.asked = 0
        self.answers = True

    async def resolve(self, _slugs):
        self.asked += 1
        return {SLUG: self.link}

    async def epoch(self) -> int:
        if not self.answers:
            raise Unavailable("postgresql", "gone")
        return self.number


def test_new_epoch_drops_what_is_held_and_what_it_knew(l1):
    l1.begin_epoch(0)
    l1.put(LOST)
    l1.on_changes([LinkChanged(SLUG, 8)])

    l1.begin_epoch(9)

    assert l1.get(SLUG) is None
    assert l1.stale(SLUG) is None
    assert not l1.accepts(LOST)
    assert l1.offer(TRUE).answer == 2


def test_same_epoch_drops_nothing(l1):
    l1.begin_epoch(9)
    l1.put(TRUE)
    l1.begin_epoch(9)
    l1.follow_epoch(9)
    l1.follow_epoch(3)  # a late answer of the old server

    assert l1.get(SLUG).answer == 2


def test_links_of_any_epoch_are_accepted_until_one_is_known(l1):
    l1.follow_epoch(9)

    assert l1.accepts(LOST)
    assert l1.accepts(TRUE)


def test_absent_slug_has_no_epoch(l1):
    l1.begin_epoch(9)

    assert l1.accepts(Resolution.absent(SLUG))


async def test_cached_link_of_another_epoch_is_a_miss(monotonic):
    cache, store = MemoryCache(), Truth(TRUE, 9)
    await cache.put([LOST])
    l1, resolving = resolver(store, cache, InProcessBus(), monotonic)
    l1.begin_epoch(9)

    assert await resolving.resolve(SLUG) == TRUE
    assert store.asked == 1


async def test_link_of_the_store_begins_its_epoch_at_once(monotonic):
    """Before the watch has looked: otherwise every visit would ask the store until it has."""
    cache, store = MemoryCache(), Truth(TRUE, 9)
    l1, resolving = resolver(store, cache, InProcessBus(), monotonic)
    l1.begin_epoch(0)
    l1.put(replace(LOST, slug=Slug("bbb")))

    assert await resolving.resolve(SLUG) == TRUE
    assert await resolving.resolve(SLUG) == TRUE
    assert store.asked == 1
    assert l1.get("bbb") is None


async def test_watch_tells_of_a_change_once(caplog):
    begun: list[int] = []
    store: Any = Truth(TRUE, 0)
    watch = EpochWatch(store, begun.append)
    with caplog.at_level(logging.WARNING):
        await watch.look()
        store.answers = False
        await watch.look()
        store.answers, store.number = True, 9
        await watch.look()
        await watch.look()

    assert begun == [0, 9, 9]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "went back to an earlier state" in caplog.text


async def test_first_look_does_not_wait_for_a_silent_store(monkeypatch):
    monkeypatch.setattr(epochs, "FIRST_LOOK_S", 0.001)
    truth: Any = Truth(TRUE, 9)
    begun: list[int] = []

    async def silence() -> int:
        await asyncio.Event().wait()
        return 9

    monkeypatch.setattr(truth, "epoch", silence)
    await EpochWatch(truth, begun.append).first_look()
    assert begun == []

    monkeypatch.undo()
    await EpochWatch(truth, begun.append).first_look()
    assert begun == [9]
