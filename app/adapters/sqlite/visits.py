"""Visits by what they look like, in the SQLite store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import cast

import apsw

from app.adapters.sqlite import sql
from app.adapters.visit_rows import visit_rows, visitors_by_slug
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import MAX_VALUES, OTHER, Dimension, ValueVisits
from app.ports import HourVisits, Merge

_HAS_VALUE = "SELECT 1 FROM visit_counts WHERE slug = ? AND hour = ? AND dimension = ? AND value = ?"
_COUNT_VALUES = """
    SELECT count(*) FROM visit_counts WHERE slug = ? AND hour = ? AND dimension = ? AND value <> ''
"""
_ADD = """
    INSERT INTO visit_counts (slug, hour, dimension, value, visits) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (slug, hour, dimension, value) DO UPDATE SET visits = visits + excluded.visits
"""
_SKETCH = "SELECT sketch FROM visit_sketches WHERE slug = ? AND day = ?"
_SET_SKETCH = "INSERT OR REPLACE INTO visit_sketches (slug, day, sketch) VALUES (?, ?, ?)"
# Of a link that took its slug over, what came before is another's. '*' is none.
_SLUGS = """(
        SELECT ?1 UNION ALL SELECT links.slug FROM links WHERE alias_of = ?1
        UNION ALL SELECT links.slug FROM links WHERE was_of = ?1
    )"""
_BEGAN = "coalesce((SELECT created_at FROM links WHERE slug = ?1 AND first_version > 1), 0)"
_VALUES = f"""
    WITH summed AS (
        SELECT dimension, value, sum(visits) AS visits FROM visit_counts
        WHERE slug IN {_SLUGS} AND hour >= ?2 AND hour < ?3 AND hour > {_BEGAN} - 3600000000
        GROUP BY dimension, value
    ), placed AS (
        SELECT *, row_number() OVER (PARTITION BY dimension ORDER BY value = '', visits DESC, value) AS place
        FROM summed
    )
    SELECT dimension, CASE WHEN place <= ?4 THEN value ELSE '' END AS name, sum(visits)
    FROM placed GROUP BY dimension, name ORDER BY dimension, name = '', sum(visits) DESC, name
"""
# A look at each hour: between them stand the rows of all other dimensions.
_KINDS = f"""
    WITH RECURSIVE given (hour) AS (
        VALUES (?2) UNION ALL SELECT hour + 3600000000 FROM given WHERE hour + 3600000000 < ?3
    ), slugs (slug) AS MATERIALIZED (SELECT * FROM {_SLUGS})
    SELECT given.hour, value, sum(visits) FROM slugs CROSS JOIN given CROSS JOIN visit_counts AS counted
        ON counted.slug = slugs.slug AND counted.hour = given.hour AND counted.dimension = 'kind'
    WHERE given.hour > {_BEGAN} - 3600000000
    GROUP BY given.hour, value ORDER BY given.hour, value
"""
SKETCHES = f"""
    SELECT sketch FROM visit_sketches
    WHERE slug IN {_SLUGS} AND day >= ?2 AND day <= ?3 AND day >= {_BEGAN} / 86400000000
"""
_NEW_KEY = "INSERT INTO visitor_keys (day, key) VALUES (?, ?) ON CONFLICT DO NOTHING"
_KEY = "SELECT key FROM visitor_keys WHERE day = ?"
_FORGET_COUNTS = """
    DELETE FROM visit_counts WHERE (slug, hour, dimension, value) IN (
        SELECT slug, hour, dimension, value FROM visit_counts WHERE hour < ? LIMIT ?
    ) RETURNING 1
"""
_FORGET_SKETCHES = """
    DELETE FROM visit_sketches
    WHERE (slug, day) IN (SELECT slug, day FROM visit_sketches WHERE day < ? LIMIT ?) RETURNING 1
"""
_FORGET_KEYS = "DELETE FROM visitor_keys WHERE day < ?"


def add(db: apsw.Connection, described: VisitsDescribed, now: datetime, merge: Merge) -> bool:
    """As `VisitStore.add_visits`."""
    if not sql.rows(db, sql.INSERT_BATCH, (described.batch, sql.micros(now))):
        return False
    hour = sql.micros(described.hour)
    room: dict[tuple[Slug, Dimension], int] = {}
    for slug, dimension, value, visits in visit_rows(described):
        of_dimension = (slug, hour, str(dimension))
        name = value
        if value and not sql.rows(db, _HAS_VALUE, (*of_dimension, value)):
            key = (slug, dimension)
            if key not in room:
                [(held,)] = sql.rows(db, _COUNT_VALUES, of_dimension)
                room[key] = MAX_VALUES - held
            if room[key] > 0:
                room[key] -= 1
            else:
                name = OTHER
        sql.rows(db, _ADD, (*of_dimension, name, visits))
    day = _number(described.hour.date())
    for slug, visitors in visitors_by_slug(described).items():
        held_sketch = sql.rows(db, _SKETCH, (slug, day))
        sketch = merge(held_sketch[0][0] if held_sketch else None, visitors)
        sql.rows(db, _SET_SKETCH, (slug, day, sketch))
    return True


def values(
    db: apsw.Connection, slug: Slug, *, since: datetime, until: datetime, limit: int
) -> list[ValueVisits]:
    """As `VisitStore.visit_values`."""
    found = sql.rows(db, _VALUES, (slug, sql.micros(since), sql.micros(until), limit))
    return [ValueVisits(Dimension(by), value, visits) for by, value, visits in found]


def kinds(db: apsw.Connection, slug: Slug, *, since: datetime, until: datetime) -> Sequence[HourVisits]:
    """As `VisitStore.visit_kinds`."""
    found = sql.rows(db, _KINDS, (slug, sql.micros(since), sql.micros(until)))
    return [HourVisits(cast("datetime", sql.time(hour)), kind, visits) for hour, kind, visits in found]


def sketches(db: apsw.Connection, slug: Slug, *, first: date, last: date) -> Sequence[bytes]:
    """As `VisitStore.visitor_sketches`."""
    return [sketch for (sketch,) in sql.rows(db, SKETCHES, (slug, _number(first), _number(last)))]


def key(db: apsw.Connection, day: date, proposed: bytes) -> bytes:
    """As `VisitStore.visitor_key`."""
    sql.rows(db, _NEW_KEY, (_number(day), proposed))
    [(held,)] = sql.rows(db, _KEY, (_number(day),))
    return bytes(held)


def forget(db: apsw.Connection, before: datetime, limit: int) -> int:
    """As `VisitStore.forget_visits`."""
    counts = sql.rows(db, _FORGET_COUNTS, (sql.micros(before), limit))
    return len(counts) + len(sql.rows(db, _FORGET_SKETCHES, (_number(before.date()), limit)))


def forget_keys(db: apsw.Connection, before: date) -> None:
    """As `VisitStore.forget_visitor_keys`."""
    sql.rows(db, _FORGET_KEYS, (_number(before),))


def _number(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()
