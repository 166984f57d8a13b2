"""Visits are described in bounded time and room, and no address leaves the process."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import timedelta

import pytest
from msgspec.structs import replace

from app.domain.link import Slug
from app.domain.visits import MAX_VALUES, OTHER, Agent, Dimension, Kind, Look
from app.service.visits import VisitNotes, VisitorKeys, visitor
from app.wire import encode_event
from tests.unit.visitors import FIREFOX, GOOGLE, NOON, SALE, Keys, described, describer, take


async def test_values_of_people_and_of_bots():
    person = Look(slug=SALE, referrer="news.example", language="de-AT", user_agent=FIREFOX)
    event = await described(
        person,
        Look(slug=SALE, client="192.0.2.2", user_agent=GOOGLE),
        Look(slug=SALE, client="192.0.2.3", user_agent="WhatsApp/2.23"),
        Look(slug=SALE, client="192.0.2.4", user_agent=FIREFOX, is_ahead=True),
        Look(slug=Slug("other"), user_agent=FIREFOX),
    )

    assert (event.hour.hour, event.hour.minute) == (12, 0)
    sale = event.visits[SALE]
    assert sale.counts == {
        Dimension.KIND: {"person": 1, "bot": 1, "preview": 1, "prefetch": 1},
        Dimension.BOT: {"Googlebot": 1, "WhatsApp": 1},
        Dimension.REFERRER: {"news.example": 1},
        Dimension.LANGUAGE: {"de": 1},
        Dimension.BROWSER: {"Firefox": 1},
        Dimension.OS: {"Linux": 1},
        Dimension.DEVICE: {"desktop": 1},
        Dimension.COUNTRY: {"unknown": 1},
        Dimension.CITY: {"unknown": 1},
    }
    assert len(sale.visitors) == 1
    assert event.visits[Slug("other")].visitors == sale.visitors


async def test_no_address_is_published():
    canary = "203.0.113.99"
    event = await described(Look(slug=SALE, client=canary, user_agent=FIREFOX))

    assert canary.encode() not in encode_event(event)
    # Nor can the hash be made without the key.
    look = Look(slug=SALE, client=canary, user_agent=FIREFOX)
    assert visitor(b"", look) not in event.visits[SALE].visitors


async def test_visitors_have_other_hashes_on_the_next_day():
    looks = [(Look(slug=SALE, client="192.0.2.1", user_agent=FIREFOX), 1)]
    one = describer(looks)

    first, again = [(await take(one))[0] for _ in range(2)]
    [later] = await take(one, NOON + timedelta(days=1))

    assert first.visits[SALE].visitors == again.visits[SALE].visitors
    assert later.visits[SALE].visitors != first.visits[SALE].visitors


async def test_processes_share_the_key_of_a_day_once_the_store_is_back():
    keys = Keys()
    one = VisitorKeys(keys, random=lambda size: b"\1" * size)
    other = VisitorKeys(keys, random=lambda size: b"\2" * size)
    day = NOON.date()

    keys.is_away = True
    assert await one.of(day) == b"\1" * 32
    keys.is_away = False
    assert await other.of(day) == b"\2" * 32
    assert await one.of(day) == b"\2" * 32


async def test_objections_are_honoured_if_the_operator_says_so():
    look = Look(slug=SALE, referrer="news.example", client="192.0.2.1", user_agent=FIREFOX, objects=True)

    kept = await described(look)
    left_out = await described(look, honours=True)

    assert Dimension.REFERRER in kept.visits[SALE].counts
    assert left_out.visits[SALE].counts == {Dimension.KIND: {Kind.PERSON: 1}}
    assert left_out.visits[SALE].visitors == ()


async def test_cancelled_call_loses_nothing():
    notes = VisitNotes()
    notes.note(Look(slug=SALE, user_agent=FIREFOX))
    one = describer(notes.take)

    task = asyncio.create_task(take(one))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    [event] = await take(one)
    assert event.visits[SALE].counts[Dimension.KIND] == {"person": 1}
    assert await one.take() == []


async def test_visits_count_in_the_hour_in_which_they_are_cut():
    one = describer([(Look(slug=SALE, user_agent=FIREFOX), 1)])
    one.cut(NOON)
    one.cut(NOON + timedelta(hours=1))

    assert [event.hour.hour for event in await one.take()] == [12, 13]


async def test_a_visit_that_cannot_be_read_holds_up_no_other():
    class Broken:
        def agent(self, user_agent):
            if user_agent == "broken":
                raise RuntimeError("a rule has failed")
            return Agent()

    looks = [(Look(slug=SALE, user_agent="broken"), 3), (Look(slug=SALE, user_agent=FIREFOX), 1)]
    one = describer(looks, agents=Broken())

    [event] = await take(one)

    assert event.visits[SALE].counts[Dimension.KIND] == {"person": 1}
    assert one.dropped == 3


async def test_reading_takes_a_bounded_time():
    looks = [(Look(slug=Slug(f"s{n}")), 1) for n in range(20)]
    noted = iter([looks, []])
    seconds = itertools.count(step=0.1)
    one = describer(lambda: next(noted), monotonic=lambda: next(seconds))

    first = await take(one)

    assert 1 <= len([slug for event in first for slug in event.visits]) < 10
    assert one.is_behind
    events = [*first, *await take(one)]
    while one.is_behind:
        events += await one.take()
    assert [slug for event in events for slug in event.visits] == [look.slug for look, _ in looks]
    assert one.dropped == 0


async def test_waiting_looks_are_bounded():
    looks = [(Look(slug=Slug(f"s{n}")), 2) for n in range(15_000)]
    one = describer(looks)

    one.cut(NOON)
    one.cut(NOON)

    assert one.dropped == 2 * 10_000


async def test_batches_fit_into_the_spool_and_lose_nothing():
    """A line of the spool has 1 MiB, and a browser can send any host."""
    wide = '\\"' * 100
    looks = [
        (
            Look(
                slug=Slug(f"s{n % 3}"),
                client=f"c{n}",
                referrer=f"{n % 500}.{wide}",
                campaign=f"utm_source={n % 500}{wide}",
            ),
            1,
        )
        for n in range(20_000)
    ]
    looks = [(replace(look, user_agent=FIREFOX), visits) for look, visits in looks]
    events, one = [], describer(looks)
    one.cut(NOON)
    while one.is_behind:
        events += await one.take()

    assert max(len(encode_event(event)) for event in events) < 1 << 20
    visitors = set()
    kinds: Counter[str] = Counter()
    for event in events:
        for slug, visits in event.visits.items():
            visitors |= {(slug, visitor) for visitor in visits.visitors}
            kinds.update(visits.counts.get(Dimension.KIND, {}))
            assert all(len(values) <= MAX_VALUES + 1 for values in visits.counts.values())
    assert len(visitors) == 20_000
    assert kinds == {"person": 20_000}


async def test_values_with_the_most_visits_are_kept():
    looks = [
        (Look(slug=SALE, referrer=f"h{n}.example", user_agent=FIREFOX), 1 + (n >= 50)) for n in range(150)
    ]

    [event] = await take(describer(looks))

    values = event.visits[SALE].counts[Dimension.REFERRER]
    assert {f"h{n}.example" for n in range(50, 150)} | {OTHER} == set(values)
    assert values[OTHER] == 50


async def test_key_of_a_store_that_hangs_is_not_waited_for():
    class Hanging(Keys):
        async def visitor_key(self, day, proposed):
            await asyncio.Event().wait()

    keys = VisitorKeys(Hanging(), random=lambda size: b"k" * size)
    async with asyncio.timeout(10):
        assert await keys.of(NOON.date()) == b"k" * 32


async def test_no_value_has_what_stores_refuse():
    event = await described(
        Look(slug=SALE, user_agent=FIREFOX, campaign="utm_source=a%00b&utm_medium=%FF&utm_campaign=%ED%A0%80")
    )

    for by in (Dimension.SOURCE, Dimension.MEDIUM, Dimension.CAMPAIGN):
        [value] = event.visits[SALE].counts[by]
        assert "\ufffd" in value
        assert "\0" not in value
