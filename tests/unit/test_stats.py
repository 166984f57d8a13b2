"""Which hours are shown, and which ranges are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.adapters.sketches import count, merge
from app.console.numbers import EXTRAS, visits_of
from app.console.rendering import texts
from app.domain.errors import InvalidInput
from app.domain.events import ClicksCounted, VisitsDescribed
from app.domain.link import LinkFields, NewLink, Slug
from app.domain.visits import OTHER, Dimension, LinkVisits
from app.service.links import Removed
from app.service.stats import Extras, HourlyStats, Stats
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


@pytest.fixture
async def visited(embedded_store, stats):
    """One visit from the last of these countries, two from the one before, and so on."""
    countries = [f"A{letter}" for letter in "DEFGILMOQRSTUWXZ"] + ["BA", "BB", "BD", "BE", "BF", "BG", "BH"]
    counts = {Dimension.COUNTRY: {code: len(countries) - n for n, code in enumerate(countries)}}
    described = VisitsDescribed("0" * 32, NOW, {SLUG: LinkVisits(counts)})
    await embedded_store.add_visits([described], now=NOW, merge=merge)
    return countries


async def test_values_are_named_up_to_the_number_asked_for(stats, visited):
    for top in (1, 10, len(visited) - 1, len(visited), 250):
        for found in (
            await stats.hourly(SLUG, extras=Extras(top=top)),
            await stats.overall(extras=Extras(top=top)),
        ):
            named = [(one.value, one.visits) for one in found.visits.of(Dimension.COUNTRY)]

            whole = [(code, len(visited) - n) for n, code in enumerate(visited)]
            rest = sum(visits for _, visits in whole[top:])
            assert named == whole[:top] + ([(OTHER, rest)] if rest else [])


async def test_map_of_the_console_shades_every_country_and_its_table_ten(stats, visited):
    for found in (await stats.hourly(SLUG, extras=EXTRAS), await stats.overall(extras=EXTRAS)):
        shown = visits_of(found.visits, texts("en"))

        [table] = shown.tables
        assert shown.map is not None
        # Antarctica has no shape.
        assert {one.code for one in shown.map.countries} == set(visited) - {"AQ"}
        assert shown.map.others == 0
        assert len(table.rows) == 11
        beyond = sum(range(1, len(visited) - 9))
        assert table.rows[-1][:2] == (texts("en")["value_other"], beyond)
