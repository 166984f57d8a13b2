"""The columns of a chart in the console, and its scales."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from app.console.chart import chart_of, scale_to
from app.console.numbers import visits_of
from app.console.rendering import texts
from app.domain.visits import UNKNOWN, Dimension, Kind, ValueVisits
from app.service.series import HOUR, Point
from app.service.stats import VisitStats

SINCE = datetime(2026, 11, 23, 3, tzinfo=UTC)


def points(*people_and_bots: tuple[int, int]) -> list[Point]:
    return [
        Point(SINCE + n * HOUR, {Kind.PERSON: people, Kind.BOT: bots})
        for n, (people, bots) in enumerate(people_and_bots)
    ]


@pytest.mark.parametrize(
    ("most", "top"),
    [(0, 1), (1, 1), (2, 2), (3, 4), (10, 10), (11, 12), (17, 20), (1_190, 1_200), (160_001, 200_000)],
)
def test_scale_ends_at_a_round_number(most, top):
    assert scale_to(most) == top


def test_scale_is_never_mostly_empty():
    for most in range(1, 3_000):
        assert most <= scale_to(most) <= 2 * most


def test_hours_are_columns_of_people_and_others():
    chart = chart_of([8, 0, 4], SINCE, points((6, 2), (0, 0), (4, 0)), texts("en"))

    assert (chart.top, chart.half, chart.is_parted, chart.is_in_hours) == (8, 4, True, True)
    first, empty, last = chart.columns
    assert (first.visits, first.people, first.others) == (8, 6, 2)
    assert (first.people_top, first.people_height) == ("25%", "75%")
    assert (first.others_top, first.others_height) == ("0%", "25%")
    assert (empty.people_height, empty.others_height) == ("0%", "0%")
    assert (last.people_height, last.others_height) == ("50%", "0%")
    assert first.name == "Mon 23 Nov, 03:00"
    assert [one.place for one in chart.columns] == ["0%", "33.333%", "66.667%"]


def test_many_hours_are_columns_of_calendar_days():
    hours = [1] * (24 * 7 + 1)

    chart = chart_of(hours, SINCE, None, texts("de"))

    assert (chart.is_in_hours, chart.is_parted) == (False, False)
    # The first day began earlier, and the last one goes on.
    assert [one.visits for one in chart.columns] == [21, *[24] * 6, 4]
    assert chart.columns[1].begins == datetime(2026, 11, 24, tzinfo=UTC)
    assert chart.columns[1].name == "Di 24. Nov."
    assert [one.mark for one in chart.columns] == [
        *("", "24. Nov.", "", "26. Nov.", "", "28. Nov.", "", "30. Nov.")
    ]


@pytest.mark.parametrize("days", range(3, 32))
def test_marks_do_not_touch_on_a_phone(days):
    chart = chart_of([0] * 24 * days, SINCE, None, texts("en"))

    marked = [n for n, one in enumerate(chart.columns) if one.mark]

    assert 2 <= len(marked) <= 6
    assert marked[-1] == len(chart.columns) - 1
    apart = min(after - before for before, after in pairwise(marked))
    assert apart / len(chart.columns) > 0.18


def test_hours_are_marked_four_times_a_day():
    chart = chart_of([0] * 24, SINCE, None, texts("en"))

    assert [one.mark for one in chart.columns if one.mark] == ["06:00", "12:00", "18:00", "00:00"]


def test_every_visit_is_seen():
    chart = chart_of([100_000, 1, 100_000], SINCE, points((99_999, 1), (0, 1), (1, 99_999)), texts("en"))

    shown = [(one.people_height, one.others_height) for one in chart.columns]
    assert shown[0][1] == shown[1][1] == shown[2][0] == "1%"


@pytest.mark.parametrize("described", [None, points((0, 0), (0, 0)), points((1, 0))])
def test_visits_that_nothing_is_known_of_are_not_parted(described):
    """Without analytics, all would be shown as others."""
    chart = chart_of([3, 4], SINCE, described, texts("en"))

    assert not chart.is_parted
    assert [(one.visits, one.people, one.others) for one in chart.columns] == [(3, 3, 0), (4, 4, 0)]


def test_people_are_no_more_than_visits():
    """Clicks and what they looked like are read one after the other."""
    chart = chart_of([3], SINCE, points((4, 0)), texts("en"))

    assert (chart.columns[0].people, chart.columns[0].others) == (3, 0)


def test_nothing_at_all_is_an_empty_chart():
    chart = chart_of([], SINCE, [], texts("en"))

    assert (chart.columns, chart.top, chart.half) == ([], 1, None)


def test_tables_have_shares_and_tell_what_is_not_known():
    values = [
        *(ValueVisits(Dimension.BROWSER, name, visits) for name, visits in (("Firefox", 399), ("X", 1))),
        ValueVisits(Dimension.COUNTRY, UNKNOWN, 400),
    ]

    shown = visits_of(VisitStats(tuple(values), 0), texts("en"))

    country, browser = shown.tables
    assert browser.rows == [("Firefox", 399, "100%"), ("X", 1, "<1%")]
    assert (country.is_unknown, browser.is_unknown) == (True, False)
