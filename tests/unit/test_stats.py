"""Which hours are shown, and which ranges are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.adapters.sketches import count
from app.domain.errors import InvalidInput
from app.domain.events import ClicksCounted
from app.domain.link import LinkFields, NewLink, Slug
from app.service.links import Removed
from app.service.stats import HourlyStats, Stats
from tests.conftest import NOW

SLUG = Slug("abc")
HALF_PAST = NOW + timedelta(minutes=30)
HOUR = timedelta(hours=1)


def new_stats(store, now):
    return Stats(store, store, store, count=count, clock=lambda: now)


@pytest.fixture
async def stats(embedded_store):
    await embedded_store.add([NewLink(slug=SLUG, fields=LinkFields(long_url="https://x.example/"))], now=NOW)
    for n in (-25, -24, -23, -1, 0):
        counted = ClicksCounted(f"{n + 99:032x}", NOW + n * HOUR, {SLUG: n + 30})
        await embedded_store.add_clicks(counted, now=NOW)
    return new_stats(embedded_store, HALF_PAST)


async def test_default_range_is_24_hours_to_now(stats):
    found = await stats.hourly(SLUG)

    assert found.since == NOW - 23 * HOUR
    assert found.hours == (7, *[0] * 21, 29, 30)
    assert found.link.visits == 5 + 6 + 7 + 29 + 30


async def test_partial_hours_are_included(stats):
    found = await stats.hourly(SLUG, since=HALF_PAST - 2 * HOUR, until=HALF_PAST - HOUR)

    assert (found.since, found.hours) == (NOW - 2 * HOUR, (0, 29))


async def test_other_time_zones_name_the_same_hours(stats):
    from datetime import timezone

    india = timezone(timedelta(hours=5, minutes=30))
    found = await stats.hourly(SLUG, since=NOW.astimezone(india), until=(NOW + HOUR).astimezone(india))

    assert (found.since, found.hours) == (NOW, (30,))
    assert found.since.utcoffset() == timedelta(0)


async def test_click_on_the_hour_counts_in_that_hour(embedded_store, stats):
    found = await new_stats(embedded_store, NOW).hourly(SLUG)

    assert isinstance(found, HourlyStats)
    assert found.hours[-1] == 30


@pytest.mark.parametrize(
    ("since", "until", "code"),
    [
        (NOW, NOW, "range_empty"),
        (NOW + HOUR, NOW, "range_empty"),
        (HALF_PAST + 24 * HOUR, None, "range_empty"),
        (NOW - timedelta(days=31, hours=1), NOW, "range_too_long"),
        (datetime(2000, 1, 1, tzinfo=UTC), None, "range_too_long"),
        (NOW.replace(tzinfo=None), None, "time_without_zone"),
        (None, NOW.replace(tzinfo=None), "time_without_zone"),
        (datetime.min.replace(tzinfo=UTC), None, "time_out_of_range"),
        (None, datetime.max.replace(tzinfo=UTC), "time_out_of_range"),
    ],
)
async def test_invalid_range_is_refused(stats, since, until, code):
    with pytest.raises(InvalidInput) as caught:
        await stats.hourly(SLUG, since=since, until=until)

    assert [error.code for error in caught.value.errors] == [code]


async def test_range_of_31_days_is_accepted(stats):
    assert len((await stats.hourly(SLUG, since=NOW - timedelta(days=31), until=NOW)).hours) == 31 * 24


async def test_unknown_and_removed_links(stats, embedded_store):
    assert await stats.hourly(Slug("nope")) is None
    await embedded_store.remove(SLUG, expected_version=None, now=NOW)
    assert isinstance(await stats.hourly(SLUG), Removed)
