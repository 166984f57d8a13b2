"""What a worker does, over the adapters that ship: SQLite, memory, in-process."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from app.adapters.memory.bus import InProcessBus
from app.adapters.sketches import count, merge
from app.bootstrap.webhooks import new_dispatcher
from app.bootstrap.worker import new_deliveries
from app.domain.domains import DomainIndex
from app.domain.errors import Unavailable
from app.domain.events import ClicksCounted, LinkChanged, LinksMissed, VisitsDescribed, WorkQueue
from app.domain.link import Slug
from app.domain.visits import ALL_LINKS, Dimension, LinkVisits, ValueVisits
from app.settings import Settings
from app.telemetry.errors import ErrorCounts
from app.telemetry.families import EVENT_AGE, EVENT_PROCESSING, EVENTS, QUEUE_MESSAGES
from app.telemetry.sources import queue_samples
from tests.conftest import NOW
from tests.contract.cache_entries import cached
from tests.unit.services import FIELDS, SLUG
from worker.housekeeping import (
    BATCH_MEMORY,
    EVENT_MEMORY,
    HISTORY_MEMORY,
    REQUEST_MEMORY,
    VISIT_MEMORY,
    Housekeeping,
)
from worker.main import run_worker
from worker.queue_depths import QueueDepthWatch
from worker.visits import VisitConsumer

HOUR = NOW.replace(minute=0, second=0, microsecond=0)


def idle_webhooks(store):
    """What delivers to webhooks, of which there are none."""
    settings = Settings()
    return new_dispatcher(settings, store, DomainIndex("http://hop.example"), lambda: asyncio.sleep(0))


async def test_worker_consumes_both_queues(embedded_store, links, cache, bus, monotonic):
    await links.create(FIELDS, custom_slug=SLUG)
    async with asyncio.timeout(5):
        async with run_worker(
            embedded_store,
            cache,
            bus,
            new_deliveries(ErrorCounts()),
            webhooks=idle_webhooks(embedded_store),
            merge=merge,
            clock=lambda: NOW,
            monotonic=monotonic,
        ) as worker:
            await bus.publish([LinkChanged(SLUG, 1), ClicksCounted("0" * 32, HOUR, {SLUG: 3})])
            while (await embedded_store.get(SLUG)).visits < 3 or await cached(cache, SLUG) is None:
                await asyncio.sleep(0)
            monotonic.now += 1
            while worker.sampler.snapshot()[1].checked == 0:
                await worker.sampler.check_due()
            while worker.outbox.depth is None:
                await asyncio.sleep(0)

    assert worker.sampler.snapshot()[1].inconsistent == 0


async def test_descriptions_count_for_their_links_and_for_all(embedded_store):
    browser = Dimension.BROWSER
    described = VisitsDescribed(
        "1" * 32,
        HOUR,
        {
            SLUG: LinkVisits({browser: {"Firefox": 2}}, (1, 2)),
            Slug("other"): LinkVisits({browser: {"Firefox": 1, "Safari": 1}}, (2, 3)),
        },
    )
    consumer = VisitConsumer(embedded_store, merge, clock=lambda: NOW)

    assert await consumer.handle([described]) == 0
    assert await consumer.handle([described]) == 1

    hours = {"since": HOUR, "until": HOUR + timedelta(hours=1), "limit": 5}
    assert list(await embedded_store.visit_values(ALL_LINKS, **hours)) == [
        ValueVisits(browser, "Firefox", 3),
        ValueVisits(browser, "Safari", 1),
    ]
    assert list(await embedded_store.visit_values(SLUG, **hours)) == [ValueVisits(browser, "Firefox", 2)]
    day = {"first": HOUR.date(), "last": HOUR.date()}
    assert count(await embedded_store.visitor_sketches(ALL_LINKS, **day)) == 3
    assert count(await embedded_store.visitor_sketches(SLUG, **day)) == 2


async def test_queue_depths_are_reported_while_they_are_known():
    class Broker(InProcessBus):
        is_away = False

        async def queue_depths(self):
            if self.is_away:
                raise Unavailable("rabbitmq", "away")
            return await super().queue_depths()

    broker = Broker()
    watch = QueueDepthWatch(broker)
    assert queue_samples(watch) == {}

    await broker.publish([LinkChanged(SLUG, 1)])
    await watch.look()
    known = queue_samples(watch)
    broker.is_away = True
    await watch.look()

    assert known[QUEUE_MESSAGES.of("hopgate.cache", "ready")] == [1]
    assert known[QUEUE_MESSAGES.of("hopgate.cache", "unacknowledged")] == [0]
    assert known[QUEUE_MESSAGES.of("hopgate.clicks.dead", "ready")] == [0]
    assert QUEUE_MESSAGES.of("hopgate.clicks.dead", "unacknowledged") not in known
    assert queue_samples(watch) == {}
    await broker.aclose()


async def test_housekeeping_forgets_after_a_day():  # noqa: C901 - one class with a method for each call
    class Store:
        def __init__(self):
            self.forgotten: dict[str, datetime] = {}
            self.calls: list[int] = []
            self.left: list[int] = []

        async def forget_requests(self, *, before):
            self.forgotten["requests"] = before
            return 0

        async def forget_batches(self, *, before):
            self.forgotten["batches"] = before
            return 0

        async def forget_history(self, *, before, limit):
            self.forgotten["history"] = before
            self.calls.append(limit)
            return self.left.pop(0) if self.left else 0

        async def forget_events(self, *, before, limit):
            self.forgotten["events"] = before
            return 0

        async def forget_sessions(self, *, before, limit):
            self.forgotten["sessions"] = before
            return 0

        async def history(self, slug, *, before, limit):
            raise AssertionError

        async def restore(self, slug, state, *, expected_version, now):
            raise AssertionError

        async def forget_visits(self, *, before, limit):
            self.forgotten["visits"] = before
            return 0

        async def forget_visitor_keys(self, *, before):
            self.forgotten["keys"] = before

        async def add_visits(self, described, *, now, merge):
            raise AssertionError

        async def roll_up_visits(self, *, since, until):
            self.rolled_up = since, until
            return False

        async def visit_values(self, slug, *, since, until, limit):
            raise AssertionError

        async def visit_kinds(self, slug, *, starts, until):
            raise AssertionError

        async def visitor_sketches(self, slug, *, first, last):
            raise AssertionError

        async def visitor_key(self, day, proposed):
            raise AssertionError

        async def add_clicks(self, counted, *, now):
            raise AssertionError

        async def hourly_clicks(self, slug, *, since, until):
            raise AssertionError

    store = Store()

    await Housekeeping(store, clock=lambda: NOW, monotonic=lambda: 0.0).clean_up()

    assert REQUEST_MEMORY == BATCH_MEMORY == timedelta(hours=24)
    assert timedelta(days=90) == HISTORY_MEMORY
    assert store.forgotten == {
        "requests": NOW - REQUEST_MEMORY,
        "batches": NOW - BATCH_MEMORY,
        "history": NOW - HISTORY_MEMORY,
        "events": NOW - EVENT_MEMORY,
        "sessions": NOW,
        "visits": NOW - VISIT_MEMORY,
        "keys": (NOW - timedelta(days=1)).date(),
    }

    assert store.rolled_up == (NOW - VISIT_MEMORY, NOW)

    # A step of the clock forgets nothing early; the time that passes does.
    times, seconds = [NOW], [0.0]
    housekeeping = Housekeeping(store, clock=lambda: times[0], monotonic=lambda: seconds[0])
    times[0], seconds[0] = NOW + timedelta(days=9), 60.0
    await housekeeping.clean_up()
    assert store.forgotten["requests"] == NOW + timedelta(seconds=60) - REQUEST_MEMORY
    times[0] = NOW - timedelta(days=9)
    await housekeeping.clean_up()
    assert store.forgotten["batches"] == times[0] - BATCH_MEMORY

    # The history has a time of its own, and is forgotten in batches until little is left.
    store.calls, store.left = [], [1000, 1000, 7]
    week = timedelta(days=7)
    await Housekeeping(store, clock=lambda: NOW, monotonic=lambda: 0.0, history=week).clean_up()
    assert store.forgotten["history"] == NOW - week
    assert store.calls == [1000] * 3


async def test_missed_link_fills_the_cache(embedded_store, links, cache, bus, monotonic):
    await links.create(FIELDS, custom_slug=Slug("missed"))
    async with asyncio.timeout(5):
        async with run_worker(
            embedded_store,
            cache,
            bus,
            new_deliveries(ErrorCounts()),
            webhooks=idle_webhooks(embedded_store),
            merge=merge,
            clock=lambda: NOW,
            monotonic=monotonic,
        ):
            await bus.publish([LinksMissed((Slug("missed"),))])
            while await cached(cache, Slug("missed")) is None:
                await asyncio.sleep(0)


async def test_events_are_reported_by_outcome_with_age_and_time(embedded_store, links, cache, monotonic):
    """A change that a later one has overtaken, and clicks that were added before, are stale."""
    bus, deliveries = InProcessBus(wall=lambda: 1_000.0), new_deliveries(ErrorCounts())
    await links.create(FIELDS, custom_slug=SLUG)
    await links.change(SLUG, {"title": "new"})
    batch = ClicksCounted("0" * 32, HOUR, {SLUG: 3})

    def reported(queue: WorkQueue) -> dict[str, float]:
        samples = deliveries[queue].samples()
        return {
            outcome: samples[EVENTS.of(queue, outcome)][0]
            for outcome in ("applied", "stale", "retried", "parked")
        }

    assert reported(WorkQueue.CACHE) == dict.fromkeys(("applied", "stale", "retried", "parked"), 0)
    async with asyncio.timeout(5):
        async with run_worker(
            embedded_store,
            cache,
            bus,
            deliveries,
            webhooks=idle_webhooks(embedded_store),
            merge=merge,
            clock=lambda: NOW,
            monotonic=monotonic,
        ) as worker:
            await bus.publish(
                [LinkChanged(SLUG, 1, 998.0), LinkChanged(SLUG, 2, 999.0), LinksMissed((SLUG,))]
            )
            await bus.publish([batch, batch])
            while sum(reported(WorkQueue.CACHE).values()) < 3 or sum(reported(WorkQueue.CLICKS).values()) < 2:
                await asyncio.sleep(0)
    await bus.aclose()

    assert reported(WorkQueue.CACHE) == {"applied": 2, "stale": 1, "retried": 0, "parked": 0}
    assert reported(WorkQueue.CLICKS) == {"applied": 1, "stale": 1, "retried": 0, "parked": 0}
    assert worker.clicks.added == 3
    samples = deliveries[WorkQueue.CACHE].samples()
    assert samples[EVENT_AGE.of(WorkQueue.CACHE)][-1] == 2 + 1 + 0
    assert sum(samples[EVENT_AGE.of(WorkQueue.CACHE)][:-1]) == 3
    assert sum(samples[EVENT_PROCESSING.of(WorkQueue.CACHE)][:-1]) == 3
