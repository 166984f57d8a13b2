"""Descriptions of visits as rows, for both stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import Dimension


class Row(NamedTuple):
    """The visits of one value."""

    slug: Slug
    dimension: Dimension
    value: str
    visits: int


def visit_rows(described: VisitsDescribed) -> list[Row]:
    """Return one row for each value, most visits first within a dimension."""
    return [
        Row(slug, dimension, value, visits)
        for slug, one in described.visits.items()
        for dimension, values in one.counts.items()
        for value, visits in sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def visitors_by_slug(described: VisitsDescribed) -> Mapping[Slug, tuple[int, ...]]:
    """Return the visitors of the links that have any."""
    return {slug: one.visitors for slug, one in sorted(described.visits.items()) if one.visitors}
