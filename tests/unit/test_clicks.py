"""Clicks from the counter to the store: none lost, none twice, through every outage."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from app.adapters.file_spool import FileSpool
from app.adapters.memory.bus import InProcessBus
from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Resolution, Slug
from app.service import clicks as clicks_module
from app.service.clicks import ClickCounter, ClickPublisher
from app.service.l1_cache import L1Cache
from app.telemetry.sources import click_samples
from app.wire import MAX_CLICKED_SLUGS_A_MESSAGE
from tests.conftest import NOW
from worker.clicks import ClickConsumer

HOUR = datetime(2030, 1, 31, 12, tzinfo=UTC)


class Bus(InProcessBus):
    """Records what it received. It may refuse everything, or not confirm what it received."""

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
        """The totals in the store: each batch once."""
        total: Counter[Slug] = Counter()
        for batch in {event.batch: event for event in self.taken}.values():
            total.update(batch.clicks)
        return total


class NoDisk:
    kept_bytes = 0

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


class Counting(ClickPublisher):
    """A publisher that counts the clicks as well."""

    click: Callable[..., None]


def counting(bus, spool, clock=lambda: NOW):
    ids = itertools.count(1)
    counter = ClickCounter()
    clicks = Counting(counter, lambda: None, bus, spool, clock=clock, new_id=lambda: f"{next(ids):032x}")
    clicks.click = counter.count
    return clicks


async def test_flush_publishes_one_batch_of_new_clicks(bus, spool):
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


async def test_flush_collects_clicks_of_the_l1_cache(bus, spool):
    counter = ClickCounter()
    l1 = L1Cache(
        lambda resolution, _: resolution, monotonic=lambda: 0.0, wall=lambda: 0.0, clicked=counter.count
    )
    clicks = ClickPublisher(counter, l1.collect, bus, spool, clock=lambda: NOW, new_id=lambda: "0" * 32)
    entry = l1.put(Resolution(Slug("aaa"), 1, "https://example.com/"))
    entry.clicks += 3
    l1.note_clicked(entry)
    counter.count(Slug("aaa"))

    await clicks.flush()

    assert [batch.clicks for batch in bus.taken] == [{"aaa": 4}]


async def test_many_slugs_are_flushed_early_in_several_messages(bus, spool):
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


def test_counter_is_bounded(monkeypatch):
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


async def test_publisher_logs_when_the_broker_stops_and_resumes(bus, spool, caplog):
    clicks = counting(bus, spool)
    for bus.takes in (False, False, True, True):
        clicks.click("aaa")
        await clicks.flush()

    assert [record.getMessage() for record in caplog.records] == [
        "click publisher: the broker does not confirm 1 of 1 batches; kept on disk",
        "click publisher: the broker confirms again",
    ]


async def test_every_click_is_reported_where_it_is(bus, spool):
    clicks = counting(bus, spool)

    def reported() -> dict[str, float]:
        return {family.name: value for (family, _), [value] in click_samples(clicks).items()}

    nothing = reported()
    bus.takes = False
    for _ in range(3):
        clicks.click("aaa")
    in_memory = reported()
    await clicks.flush()
    on_disk = reported()
    bus.takes = True
    await clicks.flush()
    sent = reported()

    assert nothing == {
        "hopgate_clicks_buffered": 0,
        "hopgate_clicks_published": 0,
        "hopgate_clicks_spilled": 0,
        "hopgate_click_spool_bytes": 0,
        "hopgate_clicks_dropped": 0,
    }
    assert in_memory == {**nothing, "hopgate_clicks_buffered": 3}
    assert on_disk["hopgate_click_spool_bytes"] > 0
    assert on_disk == {**nothing, "hopgate_clicks_spilled": 3} | {
        "hopgate_click_spool_bytes": on_disk["hopgate_click_spool_bytes"]
    }
    assert sent == {**nothing, "hopgate_clicks_spilled": 3, "hopgate_clicks_published": 3}
    await spool.aclose()


async def test_refused_batches_are_kept_and_published_in_order(bus, spool):
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


async def test_unconfirmed_batch_is_repeated_under_its_id(bus, spool, embedded_store):
    link = NewLink(slug=Slug("aaa"), fields=LinkFields(long_url="https://example.com/"))
    await embedded_store.add([link], now=NOW)
    clicks, consumer = counting(bus, spool), ClickConsumer(embedded_store, clock=lambda: NOW)
    bus.confirms = False
    clicks.click("aaa", 5)
    await clicks.flush()
    await clicks.flush()
    bus.confirms = True
    await clicks.flush()

    assert len(bus.taken) > 1
    await consumer.handle(bus.taken)
    assert await embedded_store.hourly_clicks(Slug("aaa"), since=HOUR, until=HOUR + timedelta(hours=1)) == {
        HOUR: 5
    }


async def test_disk_comes_first_while_the_bus_refuses(bus, spool):
    """Otherwise a publish that fails slowly would hold the clicks in memory meanwhile."""
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


async def test_cancelled_flush_is_finished_by_the_next(bus, spool):
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


async def test_clicks_without_bus_and_disk_are_dropped(bus, caplog):
    clicks = counting(bus, NoDisk())
    bus.takes = False
    clicks.click("aaa", 3)
    clicks.click("bbb", 4)
    await clicks.flush()

    assert clicks.dropped == 7
    assert "7 clicks lost" in caplog.text
    bus.takes = True
    clicks.click("aaa")
    await clicks.flush()
    assert bus.counted() == {"aaa": 1}


async def test_unavailable_store_is_raised_to_the_bus():
    class AwayStore:
        async def add_clicks(self, counted, *, now):
            raise Unavailable("store", "away")

        async def hourly_clicks(self, slug, *, since, until):
            raise AssertionError

        async def forget_batches(self, *, before):
            raise AssertionError

    bus = Bus()
    clicks = counting(bus, NoDisk())
    clicks.click("aaa")
    await clicks.flush()

    with pytest.raises(Unavailable):
        await ClickConsumer(AwayStore(), clock=lambda: NOW).handle(bus.taken)


class EveryClickIsSomewhere(RuleBasedStateMachine):
    """Through every outage of bus, disk and process: counted + dropped = clicked in the end."""

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
        self.clicks = ClickPublisher(
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
        """A graceful stop: flush, then another process in the same folder."""
        self.flush()
        self.loop.run_until_complete(self.spool.aclose())
        self.dropped += self.clicks.dropped
        self.start()

    @rule()
    def die_after_a_flush(self):
        self.flush()
        self.dropped += self.clicks.dropped
        # The kernel closes the files of a dead process.
        for file in self.spool._files:
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
        # A batch that arrived unconfirmed and did not fit on the disk counts as dropped, too early.
        assert self.clicked - dropped <= counted <= self.clicked
        self.loop.close()
        self.folder.cleanup()


TestEveryClickIsSomewhere = EveryClickIsSomewhere.TestCase
