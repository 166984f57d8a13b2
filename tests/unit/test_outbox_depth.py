"""A backlog that is being delivered is healthy, however long; one that stands still is not."""

from __future__ import annotations

from typing import Any

import pytest

from app.adapters.memory.cache import MemoryCache
from app.commands import doctor
from app.domain.errors import Unavailable
from app.domain.events import LinkChanged
from app.domain.link import Resolution, Slug
from app.ports import OutboxDepth
from app.service.cache_sync import CacheSync
from app.settings import Settings
from tests.contract.cache_entries import cached
from tests.unit.services import FIELDS, SLUG, resolver
from worker.outbox_depth import OutboxDepthWatch


class Outbox:
    """An outbox of which `step` rows are delivered before each look, and that grows by `grows`."""

    def __init__(self, *, rows: int = 1_000_000, step: int = 0, grows: int = 0) -> None:
        self.first, self.rows = 1, rows
        self.step, self.grows = step, grows
        self.answers = True

    async def outbox_depth(self) -> OutboxDepth:
        if not self.answers:
            raise Unavailable("postgresql", "gone")
        self.first += self.step
        self.rows += self.grows - self.step
        return OutboxDepth(self.rows, 600.0, self.first) if self.rows else OutboxDepth(0, 0.0)


@pytest.mark.parametrize(
    ("outbox", "stalled_s"),
    [
        (Outbox(), 60.0),
        (Outbox(step=100), 0.0),
        (Outbox(step=100, grows=5_000), 0.0),
        (Outbox(grows=5_000), 60.0),
        (Outbox(rows=0), 0.0),
    ],
    ids=["stalled", "shrinks", "grows and is delivered", "grows", "empty"],
)
async def test_watch_measures_a_stall(outbox: Any, stalled_s: float, monotonic: Any) -> None:
    watch = OutboxDepthWatch(outbox, monotonic=monotonic)
    await watch.look()
    for _ in range(12):
        monotonic.now += 5
        await watch.look()

    assert watch.stalled_s == stalled_s


async def test_stall_goes_on_while_the_store_is_away(monotonic: Any) -> None:
    outbox: Any = Outbox()
    watch = OutboxDepthWatch(outbox, monotonic=monotonic)
    await watch.look()
    outbox.answers = False
    monotonic.now += 20
    await watch.look()
    assert watch.depth is None
    outbox.answers = True
    monotonic.now += 20
    await watch.look()

    assert watch.stalled_s == 40


@pytest.mark.parametrize(
    ("step", "healthy", "words"), [(100, True, "are being delivered"), (0, False, "none was delivered")]
)
async def test_doctor_tells_a_backlog_from_a_stall(
    step: int, healthy: bool, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(doctor, "_MOVES_S", 0.05)
    monkeypatch.setattr(doctor, "_LOOK_S", 0.01)
    store: Any = Outbox(step=step)

    found = await doctor._outbox(store, Settings(data_dir=tmp_path))

    assert found.healthy is healthy
    assert words in found.detail
    assert bool(found.remedy) is not healthy


async def test_new_slug_shows_without_an_event(
    embedded_store: Any, links: Any, bus: Any, monotonic: Any
) -> None:
    """A bulk import needs none: no cache but L1 holds an absent slug, and that for two seconds."""
    cache = MemoryCache()
    l1, resolving = resolver(embedded_store, cache, bus, monotonic)
    await CacheSync(embedded_store, cache, bus).apply([LinkChanged(SLUG, 1)])
    assert await cached(cache, SLUG) is None
    assert (await resolving.resolve(SLUG)).version == 0
    assert await cached(cache, SLUG) is None

    await links.create(FIELDS, custom_slug=SLUG)
    monotonic.now += 2

    assert await resolving.resolve(SLUG) == Resolution.of(await embedded_store.get(SLUG))
    assert l1.get(Slug(SLUG)) is not None
