"""Which countries the map of the console shades, and how."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from app.console import countries
from app.console.numbers import visits_of
from app.console.rendering import texts
from app.domain.visits import OTHER, UNKNOWN, Dimension, ValueVisits
from app.service.stats import VisitStats

FOLDER = Path(__file__).parents[2] / "app" / "console" / "world"
SHAPES = (FOLDER / "world.svg").read_text("utf-8")
# Of ISO 3166-1, islands where no one lives, and what the map cuts off.
WITHOUT_A_SHAPE = {"AQ", "BV", "UM"}


def values(**visits: int) -> list[ValueVisits]:
    return [ValueVisits(Dimension.COUNTRY, code, count) for code, count in visits.items()]


@pytest.mark.parametrize(
    ("most", "ranges"),
    [
        (1, [(1, 1)]),
        (3, [(1, 1), (2, 2), (3, 3)]),
        (5, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]),
        (1_000, [(1, 4), (5, 16), (17, 63), (64, 251), (252, 1_000)]),
        (100_000, [(1, 10), (11, 100), (101, 1_000), (1_001, 10_000), (10_001, 100_000)]),
    ],
)
def test_shades_part_the_visits(most, ranges):
    assert countries.ranges_to(most) == ranges


@pytest.mark.parametrize("most", [6, 7, 8, 10, 31, 99, 10**9, 10**15])
def test_every_number_has_one_of_five_shades(most):
    ranges = countries.ranges_to(most)

    assert 3 <= len(ranges) <= countries.STEPS
    assert (ranges[0][0], ranges[-1][1]) == (1, most)
    assert all(after[0] == before[1] + 1 for before, after in pairwise(ranges))
    assert all(fewest <= highest for fewest, highest in ranges)


def test_countries_are_named_and_shaded_by_their_visits():
    drawn = countries.map_of(values(DE=1_000, AT=20, SG=4, XK=1), "de")

    assert drawn is not None
    assert [(one.name, one.step) for one in drawn.countries] == [
        ("Deutschland", 5),
        ("Österreich", 3),
        ("Singapur", 1),
        ("Kosovo", 1),
    ]
    assert drawn.others == 0
    assert SHAPES.count(f'viewBox="{drawn.box}"') == 1


def test_what_is_no_country_of_the_map_is_left_out():
    found = [*values(AT=3, AQ=9, ZZ=9, **{UNKNOWN: 50}), ValueVisits(Dimension.COUNTRY, OTHER, 7)]

    drawn = countries.map_of(found, "en")

    assert drawn is not None
    assert ([one.code for one in drawn.countries], drawn.others) == (["AT"], 7)
    assert drawn.ranges[-1] == (3, 3)
    assert countries.map_of(found[1:], "en") is None


def test_table_of_countries_has_their_names():
    stats = VisitStats((*values(AT=3, ZZ=2, unknown=1), ValueVisits(Dimension.LANGUAGE, "de", 6)), 0)

    shown = visits_of(stats, texts("en"))

    rows = {table.title: [value for value, *_ in table.rows] for table in shown.tables}
    assert rows == {"Countries": ["Austria", "ZZ", "unknown"], "Languages": ["de"]}


def test_every_country_has_a_shape_and_a_name():
    shapes = re.findall(r' id="([A-Z]{2})"', SHAPES)

    assert len(shapes) == len(set(shapes)) > 240
    assert set(countries.names("en")) == set(countries.names("de")) == set(shapes) | WITHOUT_A_SHAPE
    assert countries.names("xx") == countries.names("en")
    assert len(SHAPES) < 60_000
