"""What visits looked like has a way of its own to the bus: clicks neither wait for it nor share its disk."""

from __future__ import annotations

import itertools

import pytest

from app.adapters.file_spool import FileSpool
from app.adapters.memory.bus import InProcessBus
from app.adapters.places import NoPlaces
from app.domain.events import ClicksCounted, VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import Agent, Dimension, LinkVisits, Look
from app.service.clicks import ClickCounter, ClickPublisher
from app.service.visit_publisher import VisitPublisher
from app.service.visits import VisitDescriber, VisitNotes, VisitorKeys
from tests.conftest import NOW

SALE = Slug("sale")


class Bus(InProcessBus):
    """Confirms clicks, and descriptions of visits only while it has room for them."""

    def __init__(self):
        super().__init__()
        self.taken = []
        self.has_room = True

    async def publish(self, events):
        taken = [self.has_room or isinstance(event, ClicksCounted) for event in events]
        self.taken += [event for event, is_taken in zip(events, taken, strict=True) if is_taken]
        return taken

    def clicks(self):
        return sum(sum(event.clicks.values()) for event in self.taken if isinstance(event, ClicksCounted))

    def described(self):
        return sum(
            one.counts[Dimension.KIND]["person"]
            for event in self.taken
            if isinstance(event, VisitsDescribed)
            for one in event.visits.values()
        )


class Keys:
    async def visitor_key(self, day, proposed):
        return proposed

    async def forget_visitor_keys(self, *, before):
        raise AssertionError


class People:
    def agent(self, user_agent):
        return Agent()


class Gateway:
    def __init__(self, folder, **options):
        self.bus, self.notes, self.counter = Bus(), VisitNotes(), ClickCounter()
        numbers = itertools.count()
        new_id = lambda: f"{next(numbers):032x}"  # noqa: E731
        describer = VisitDescriber(
            self.notes.take,
            VisitorKeys(Keys(), random=bytes),
            People(),
            NoPlaces(),
            honours_objections=False,
            monotonic=lambda: 0.0,
            new_id=new_id,
        )
        self.visits = VisitPublisher(
            describer, self.bus, FileSpool(folder / "visits", new_name=new_id, **options)
        )
        self.clicks = ClickPublisher(
            self.counter,
            lambda: None,
            self.bus,
            FileSpool(folder / "clicks", new_name=new_id),
            clock=lambda: NOW,
            new_id=new_id,
            described=self.visits,
        )

    async def visit(self):
        self.counter.count(SALE)
        self.notes.note(Look(slug=SALE))
        await self.clicks.flush()


@pytest.fixture
def gateway(tmp_path):
    return Gateway(tmp_path)


async def test_clicks_do_not_wait_for_a_full_queue_of_descriptions(gateway):
    gateway.bus.has_room = False
    for _ in range(5):
        await gateway.visit()

    assert (gateway.bus.clicks(), gateway.clicks.spilled) == (5, 0)
    assert gateway.bus.described() == 0
    assert gateway.visits.spooled_bytes > 0

    gateway.bus.has_room = True
    await gateway.visit()
    await gateway.clicks.flush()

    assert (gateway.bus.clicks(), gateway.bus.described()) == (6, 6)
    assert gateway.visits.undescribed == 0


async def test_lost_descriptions_are_counted(tmp_path):
    gateway = Gateway(tmp_path, max_bytes=10)
    gateway.bus.has_room = False
    await gateway.visit()

    assert gateway.visits.undescribed == 1
    assert gateway.bus.clicks() == 1


async def test_closing_publishes_what_waits_to_be_described(gateway):
    gateway.counter.count(SALE)
    gateway.notes.note(Look(slug=SALE))
    await gateway.clicks.aclose()

    assert (gateway.bus.clicks(), gateway.bus.described()) == (1, 1)


async def test_batch_that_is_too_long_for_a_line_does_not_cost_the_clicks_behind_it(tmp_path):
    spool = FileSpool(tmp_path, new_name=lambda: "one")
    long = VisitsDescribed(
        "1" * 32, NOW.replace(minute=0), {SALE: LinkVisits({}, tuple(range(10**18, 10**18 + 60_000)))}
    )
    clicks = ClicksCounted("2" * 32, NOW.replace(minute=0), {SALE: 1})

    assert not await spool.append(long)
    assert await spool.append(clicks)
    assert await spool.oldest(5) == [clicks]
    await spool.aclose()
