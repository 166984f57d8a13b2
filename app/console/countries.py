"""Visits by country as a map: which countries are shaded, how dark, and by what names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from app.console.rendering import DEFAULT_LANGUAGE
from app.domain.visits import OTHER, UNKNOWN, ValueVisits

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# Shades of the map; the style sheet has as many.
STEPS = 5


@dataclass(frozen=True, slots=True)
class Country:
    """A country with visits; `step` is its shade, from 1, the palest, to `STEPS`."""

    code: str
    name: str
    visits: int
    step: int


@dataclass(frozen=True, slots=True)
class WorldMap:
    """
    The countries of some visits that have a shape.

    `ranges`: the fewest and the most visits of each shade. `others`: visits of countries that are not named.
    """

    countries: Sequence[Country]
    ranges: Sequence[tuple[int, int]]
    others: int
    box: str


def map_of(values: Sequence[ValueVisits], language: str) -> WorldMap | None:
    """Return the map of *values* of the dimension country; None if no country with a shape has a visit."""
    box, shapes = _shapes()
    named = names(language)
    found = [one for one in values if one.value in shapes and one.visits]
    if not found:
        return None
    ranges = ranges_to(max(one.visits for one in found))
    countries = [
        Country(one.value, named[one.value], one.visits, 1 + sum(most < one.visits for _, most in ranges))
        for one in found
    ]
    others = sum(one.visits for one in values if one.value == OTHER)
    return WorldMap(countries, ranges, others, box)


def ranges_to(most: int) -> Sequence[tuple[int, int]]:
    """Return at most `STEPS` ranges that part 1 to *most*, by equal factors if there are many numbers."""
    ends = [round(most ** (step / STEPS)) for step in range(1, STEPS)] if most > STEPS else range(1, most)
    whole = sorted({*ends, most})
    return list(zip((1, *(end + 1 for end in whole)), whole, strict=False))


@cache
def names(language: str) -> Mapping[str, str]:
    """Return the names of countries by their codes, in *language*, else in English."""
    file = _folder().joinpath(f"{language}.toml")
    if not file.is_file():
        file = _folder().joinpath(f"{DEFAULT_LANGUAGE}.toml")
    return tomllib.loads(file.read_text("utf-8"))


def name_of(code: str, language: str) -> str | None:
    """Return the name of the country *code*; None for what is none."""
    return None if code in {OTHER, UNKNOWN} else names(language).get(code)


@cache
def _shapes() -> tuple[str, frozenset[str]]:
    """Return the coordinates that the map has, and the codes of its shapes."""
    text = _folder().joinpath("world.svg").read_text("utf-8")
    box = re.findall(r'viewBox="([^"]+)"', text)[0]
    return box, frozenset(re.findall(r' id="([A-Z]{2})"', text))


def _folder() -> Traversable:
    return resources.files("app.console").joinpath("world")
