"""Clicks on their way from the counter to the store: none lost, none twice, whatever is away."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from app.adapters.bus_inprocess import InProcessBus
from app.adapters.spool_file import FileSpool
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.service import clicks as clicks_module
from app.service.clicks import ClickCounter, ClickFolder, Clicks
from app.service.hot_links import HotLinks
from app.wire import MAX_CLICKED_SLUGS_A_MESSAGE
from tests.conftest import NOW

HOUR = datetime(2030, 1, 31, 12, tzinfo=UTC)


class Bus(InProcessBus):
    """Remembers what it took. It may take nothing, or take it without saying so."""

    def __init__(self):
        super().__init__()
        self.taken = []
        self.takes = True
        self.confirms = True

    async def publish(self, events):
        if self.takes:
            self.taken += events
        return [self.takes and self.confirms] * len(events)

    def counted(self):
        """What the store makes of it: each batch once."""
        total = Counter()
        for batch in {event.batch: event for event in self.taken}.values():
            total.update(batch.clicks)
        return total


class NoDisk:
    async def append(self, counted):
        return False

    async def oldest(self, limit):
        return ()

    async def drop(self, count):
        raise AssertionError("nothing is kept")


@pytest.fixture
def bus():
    return Bus()


def new_spool(folder, **options):
    names = itertools.count()
    return FileSpool(folder, new_name=lambda: f"{next(names)}-{id(names):x}", **options)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "clicks")


def counting(bus, spool, clock=lambda: NOW):
    ids = itertools.count(1)
    counter = ClickCounter()
    clicks = Clicks(counter, lambda: None, bus, spool, clock=clock, new_id=lambda: f"{next(ids):032x}")
    clicks.click = counter.count
    return clicks


async def test_a_flush_is_one_batch_of_everything_counted_since_the_last(bus, spool):
    clicks = counting(bus, spool)
    for slug in ("aaa", "bbb", "aaa"):
        clicks.click(slug)

    await clicks.flush()
    await clicks.flush()
    clicks.click("aaa")
    await clicks.flush()

    assert [(batch.hour, batch.clicks) for batch in bus.taken] == [
        (HOUR, {"aaa": 2, "bbb": 1}),
        (HOUR, {"aaa": 1}),
    ]
    assert len({batch.batch for batch in bus.taken}) == 2


async def test_a_flush_harvests_the_first_cache(bus, spool):
    counter = ClickCounter()
    hot = HotLinks(
        lambda resolution, _: resolution, monotonic=lambda: 0.0, wall=lambda: 0.0, clicked=counter.count
    )
    clicks = Clicks(counter, hot.harvest, bus, spool, clock=lambda: NOW, new_id=lambda: "0" * 32)
    hot.put(Resolution(Slug("aaa"), 1, "https://example.com/")).clicks += 3
    counter.count(Slug("aaa"))

    await clicks.flush()

    assert [batch.clicks for batch in bus.taken] == [{"aaa": 4}]


async def test_many_slugs_are_flushed_early_and_in_messages_that_fit(bus, spool):
    clicks = counting(bus, spool)
    running = asyncio.create_task(clicks.run())
    await asyncio.sleep(0)
    for n in range(2 * MAX_CLICKED_SLUGS_A_MESSAGE + 1):
        clicks.click(f"slug-{n}")

    async with asyncio.timeout(clicks_module.FLUSH_INTERVAL_S / 2):
        while len(bus.taken) < 3:
            await asyncio.sleep(0)
    running.cancel()

    assert [len(batch.clicks) for batch in bus.taken] == [
        *[MAX_CLICKED_SLUGS_A_MESSAGE] * 2,
        1,
    ]


def test_a_counter_says_when_a_message_is_full_and_drops_what_is_far_beyond(monkeypatch):
    monkeypatch.setattr(clicks_module, "MAX_CLICKED_SLUGS_A_MESSAGE", 2)
    monkeypatch.setattr(clicks_module, "MAX_COUNTED_SLUGS", 3)
    counter = ClickCounter()
    fullness = []
    for slug in ("aaa", "bbb", "ccc", "ddd", "aaa", "ddd"):
        counter.count(Slug(slug), 10)
        fullness.append(counter.is_full.is_set())

    assert fullness == [False, True, True, True, True, True]
    assert counter.dropped == 20
    assert counter.take() == [("aaa", 20), ("bbb", 10), ("ccc", 10)]
    assert (counter.take(), counter.is_full.is_set()) == ([], False)


async def test_what_the_bus_does_not_take_is_kept_and_taken_later_in_order(bus, spool):
    clicks = counting(bus, spool)
    bus.takes = False
    for n in range(1, 4):
        clicks.click("aaa", n)
        await clicks.flush()
    assert len(await spool.oldest(10)) == 3

    bus.takes = True
    clicks.click("aaa", 10)
    await clicks.flush()

    assert [batch.clicks["aaa"] for batch in bus.taken] == [1, 2, 3, 10]
    assert await spool.oldest(10) == ()
    assert clicks.dropped == 0


async def test_a_batch_that_arrived_unconfirmed_comes_again_under_the_same_id(bus, spool, embedded_store):
    clicks, folder = counting(bus, spool), ClickFolder(embedded_store, clock=lambda: NOW)
    bus.confirms = False
    clicks.click("aaa", 5)
    await clicks.flush()
    await clicks.flush()
    bus.confirms = True
    await clicks.flush()

    assert len(bus.taken) > 1
    await folder.apply(bus.taken)
    assert await embedded_store.hourly_clicks(Slug("aaa"), since=HOUR, until=HOUR + timedelta(hours=1)) == {
        HOUR: 5
    }


async def test_while_the_bus_takes_nothing_the_disk_comes_first(bus, spool):
    """Or a publish that takes its time to fail would hold the clicks in memory meanwhile."""
    clicks = counting(bus, spool)
    bus.takes = False
    clicks.click("aaa")
    await clicks.flush()
    kept_before_publish = []

    async def slow(events):
        kept_before_publish.append([batch.clicks for batch in await spool.oldest(10)])
        return [False] * len(events)

    bus.publish = slow
    clicks.click("bbb")
    await clicks.flush()

    assert kept_before_publish == [[{"aaa": 1}, {"bbb": 1}]]


async def test_a_flush_that_is_cancelled_is_finished_by_the_next(bus, spool):
    clicks = counting(bus, spool)
    publish, asked = bus.publish, asyncio.Event()

    async def never(events):
        asked.set()
        await asyncio.Event().wait()

    bus.publish = never
    clicks.click("aaa", 3)
    flushing = asyncio.create_task(clicks.flush())
    await asked.wait()
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)

    bus.publish = publish
    await clicks.flush()

    assert bus.counted() == {"aaa": 3}


async def test_what_neither_bus_nor_disk_takes_is_counted_as_dropped(bus, caplog):
    clicks = counting(bus, NoDisk())
    bus.takes = False
    clicks.click("aaa", 3)
    clicks.click("bbb", 4)
    await clicks.flush()

    assert clicks.dropped == 7
    assert "7 clicks are lost" in caplog.text
    bus.takes = True
    clicks.click("aaa")
    await clicks.flush()
    assert bus.counted() == {"aaa": 1}


async def test_an_unavailable_store_is_the_bus_to_hear_of():
    class AwayStore:
        async def fold_clicks(self, counted, *, now):
            raise Unavailable("store", "away")

    bus = Bus()
    clicks = counting(bus, NoDisk())
    clicks.click("aaa")
    await clicks.flush()

    with pytest.raises(Unavailable):
        await ClickFolder(AwayStore(), clock=lambda: NOW).apply(bus.taken)


class EveryClickIsSomewhere(RuleBasedStateMachine):
    """However bus, disk and processes come and go: in the end, counted = clicked but for the dropped."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.bus = Bus()
        self.ids = itertools.count(1)
        self.clicked = 0
        self.dropped = 0
        self.start()

    def start(self):
        names = iter(lambda: f"{next(self.ids):x}", None)
        self.spool = FileSpool(Path(self.folder.name), new_name=lambda: next(names), max_bytes=600)
        self.counter = ClickCounter()
        self.clicks = Clicks(
            self.counter,
            lambda: None,
            self.bus,
            self.spool,
            clock=lambda: NOW,
            new_id=lambda: f"{next(self.ids):032x}",
        )

    @rule(slug=st.sampled_from(["aaa", "bbb"]), times=st.integers(1, 3))
    def click(self, slug, times):
        self.counter.count(slug, times)
        self.clicked += times

    @rule(takes=st.booleans(), confirms=st.booleans())
    def change_bus(self, takes, confirms):
        self.bus.takes, self.bus.confirms = takes, confirms

    @rule()
    def flush(self):
        self.loop.run_until_complete(self.clicks.flush())

    @rule()
    def restart(self):
        """A graceful stop: flushed, then another process in the same folder."""
        self.flush()
        self.loop.run_until_complete(self.spool.aclose())
        self.dropped += self.clicks.dropped
        self.start()

    @rule()
    def die_after_a_flush(self):
        self.flush()
        self.dropped += self.clicks.dropped
        # What the kernel does to the files of a dead process.
        for file in self.spool._reading:
            os.close(file._descriptor)
        self.spool._adopted, self.spool._own = [], None
        self.start()

    def teardown(self):
        if not hasattr(self, "loop"):
            return
        self.bus.takes = self.bus.confirms = True
        for _ in range(20):
            self.flush()
        self.loop.run_until_complete(self.spool.aclose())
        counted = sum(self.bus.counted().values())
        dropped = self.dropped + self.clicks.dropped
        # What arrived unconfirmed and then found no room on the disk was called dropped too soon.
        assert self.clicked - dropped <= counted <= self.clicked
        self.loop.close()
        self.folder.cleanup()


TestEveryClickIsSomewhere = EveryClickIsSomewhere.TestCase
