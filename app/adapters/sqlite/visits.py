"""Visits by what they look like, in the SQLite store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import groupby, repeat
from operator import itemgetter
from typing import cast

import apsw
from msgspec import json

from app.adapters.sqlite import sql
from app.adapters.visit_periods import PeriodPlan, number_of
from app.adapters.visit_rows import (
    TOTALS_AT_A_TIME,
    Columns,
    Traits,
    by_day,
    day_of,
    folded,
    slugs_of,
    totals_in,
)
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import (
    ALL_LINKS,
    ALL_LINKS_BY_DAY,
    MAX_DAY_VALUES,
    MAX_VALUES,
    OTHER,
    Dimension,
    ValueVisits,
    by_day_of,
    is_total,
)
from app.ports import Merge, PeriodVisits

# Links without statistics and those with tags, by each slug that they have or had.
_TRAITS = """
    SELECT own.slug, coalesce(target.analytics, own.analytics), coalesce(target.tags, own.tags)
    FROM json_each(?) AS asked JOIN links AS own ON own.slug = asked.value
        LEFT JOIN links AS target ON target.slug = coalesce(own.alias_of, own.was_of)
    WHERE NOT coalesce(target.analytics, own.analytics) OR coalesce(target.tags, own.tags) <> '[]'
"""
# Returns the number of the row if there was one to add to.
_ADD_TO = """
    UPDATE visit_counts SET visits = visits + ?5
    WHERE slug = ?1 AND hour = ?2 AND dimension = ?3 AND value = ?4 RETURNING ?6
"""
_COUNT_VALUES = """
    SELECT dimension, count(*) FROM visit_counts WHERE slug = ? AND hour = ? AND value <> ''
    GROUP BY dimension
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
    WITH slugs (slug) AS MATERIALIZED (SELECT * FROM {_SLUGS})
    SELECT given.value, counted.value, sum(visits)
    FROM slugs CROSS JOIN json_each(?2) AS given CROSS JOIN visit_counts AS counted
        ON counted.slug = slugs.slug AND counted.hour = given.value * 3600000000
            AND counted.dimension = 'kind'
    WHERE given.value * 3600000000 > {_BEGAN} - 3600000000
    GROUP BY given.value, counted.value
"""
_KINDS_OF_DAYS = """
    WITH RECURSIVE days (day) AS (
        VALUES (?2) UNION ALL SELECT day + 24 FROM days WHERE day + 24 < ?3
    )
    SELECT day, value, visits FROM days CROSS JOIN visit_counts AS counted
        ON counted.slug = ?1 AND counted.hour = day * 3600000000 AND counted.dimension = 'kind'
"""
_HELD = """
    SELECT (SELECT min(hour) FROM visit_counts WHERE slug = ?1) / 3600000000,
        (SELECT max(hour) FROM visit_counts WHERE slug = ?1) / 3600000000
"""
SKETCHES = f"""
    SELECT sketch FROM visit_sketches
    WHERE slug IN {_SLUGS} AND day >= ?2 AND day <= ?3 AND day >= {_BEGAN} / 86400000000
"""
_DAY_US = 86_400_000_000
# Days of a total that are added up, and the hours of the others.
_DAYS = f"""
    WITH RECURSIVE hours (hour) AS (
        VALUES (?1) UNION ALL SELECT hour + 3600000000 FROM hours WHERE hour + 3600000000 < ?2
    ), days (day) AS MATERIALIZED (
        SELECT hour FROM hours WHERE hour % {_DAY_US} = 0 AND hour + {_DAY_US} <= ?2
            AND EXISTS (
                SELECT 1 FROM visit_counts AS held
                WHERE held.slug = ?4 AND held.hour = hours.hour
            )
    )
"""
_VALUES_OF_TOTAL = f"""{_DAYS}, counted AS (
        SELECT dimension, value, visits FROM days CROSS JOIN visit_counts
            ON slug = ?4 AND hour = day
        UNION ALL
        SELECT dimension, value, visits FROM hours CROSS JOIN visit_counts AS held
            ON held.slug = ?3 AND held.hour = hours.hour
        WHERE hours.hour - hours.hour % {_DAY_US} NOT IN (SELECT day FROM days)
    ), summed AS (
        SELECT dimension, value, sum(visits) AS visits FROM counted GROUP BY dimension, value
    ), placed AS (
        SELECT *, row_number() OVER (PARTITION BY dimension ORDER BY value = '', visits DESC, value) AS place
        FROM summed
    )
    SELECT dimension, CASE WHEN place <= ?5 THEN value ELSE '' END AS name, sum(visits)
    FROM placed GROUP BY dimension, name ORDER BY dimension, name = '', sum(visits) DESC, name
"""
_ROLLED_UP = f"""
    SELECT asked.value FROM json_each(?1) AS asked WHERE EXISTS (
        SELECT 1 FROM visit_counts AS held
        WHERE held.slug = '{ALL_LINKS_BY_DAY}' || substr(asked.value, {len(ALL_LINKS) + 1}) AND held.hour = ?2
    )
"""
# The latest day first: it is asked for most. All links are added up last, so a day without them is not done.
_DAY_TO_ROLL_UP = f"""
    WITH RECURSIVE days (day) AS (
        SELECT ?2 / {_DAY_US} * {_DAY_US} - {_DAY_US}
        UNION ALL SELECT day - {_DAY_US} FROM days WHERE day - {_DAY_US} >= ?1
    )
    SELECT day FROM days
    WHERE day >= max(?1, (SELECT min(hour) FROM visit_counts WHERE slug = '{ALL_LINKS}') - {_DAY_US})
        AND NOT EXISTS (SELECT 1 FROM visit_counts WHERE slug = '{ALL_LINKS_BY_DAY}' AND hour = day)
        AND EXISTS (
            SELECT 1 FROM visit_counts WHERE slug = '{ALL_LINKS}' AND hour >= day AND hour < day + {_DAY_US}
        )
    LIMIT 1
"""
# A look-up for each total, wherever the next one begins. ALL_LINKS comes last.
_TOTALS_TO_ROLL_UP = f"""
    WITH RECURSIVE totals (slug) AS (
        SELECT '{ALL_LINKS}' UNION ALL SELECT (
            SELECT min(slug) FROM visit_counts WHERE slug > totals.slug AND slug < '{ALL_LINKS_BY_DAY}'
        ) FROM totals WHERE totals.slug IS NOT NULL
    )
    SELECT slug FROM totals
    WHERE EXISTS (
            SELECT 1 FROM visit_counts AS held
            WHERE held.slug = totals.slug AND held.hour >= ?1 AND held.hour < ?1 + {_DAY_US}
        ) AND NOT EXISTS (
            SELECT 1 FROM visit_counts AS held
            WHERE held.slug = '{ALL_LINKS_BY_DAY}' || substr(totals.slug, {len(ALL_LINKS) + 1})
                AND held.hour = ?1
        )
    ORDER BY slug DESC LIMIT {TOTALS_AT_A_TIME}
"""
_ROLL_UP = f"""
    INSERT INTO visit_counts (slug, hour, dimension, value, visits)
    SELECT ?3, ?1, dimension,
        CASE WHEN place <= {MAX_DAY_VALUES} THEN value ELSE '' END AS name, sum(visits)
    FROM (
        SELECT *, row_number() OVER (PARTITION BY dimension, value = '' ORDER BY visits DESC, value) AS place
        FROM (
            SELECT dimension, value, sum(visits) AS visits FROM visit_counts
            WHERE slug = ?2 AND hour >= ?1 AND hour < ?1 + {_DAY_US} GROUP BY dimension, value
        )
    )
    GROUP BY dimension, name
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


def traits(db: apsw.Connection, described: Iterable[VisitsDescribed]) -> Traits:
    """Return the traits of the links in *described*."""
    found = sql.rows(db, _TRAITS, (sql.json(slugs_of(described)),))
    undescribed = {slug for slug, is_described, _ in found if not is_described}
    return Traits(undescribed, {slug: json.decode(tags) for slug, _, tags in found})


def add(
    db: apsw.Connection,
    *,
    described: Iterable[VisitsDescribed],
    now: datetime,
    merge: Merge,
    of_links: Traits,
) -> int:
    """Add a part of what `VisitStore.add_visits` is given, as it says."""
    known = 0
    new: list[VisitsDescribed] = []
    for one in described:
        if sql.rows(db, sql.INSERT_BATCH, (one.batch, sql.micros(now))):
            new.append(one)
        else:
            known += 1
    together = folded(new, of_links)
    for hour, counts in together.counts.items():
        _add_counts(db, cast("int", sql.micros(hour)), counts, MAX_VALUES)
        begin = cast("int", sql.micros(day_of(hour)))
        added_up = sql.rows(db, _ROLLED_UP, (sql.json(totals_in(counts)), begin))
        if added_up:
            days = by_day(counts, {slug for (slug,) in added_up})
            _add_counts(db, begin, days, MAX_DAY_VALUES)
    for day, visitors in together.visitors.items():
        _add_visitors(db, _number(day), visitors, merge)
    return known


def _add_counts(db: apsw.Connection, hour: int, counts: Columns, most: int) -> None:
    slugs, dimensions, named, visits = counts
    numbers = range(len(slugs))
    hours = repeat(hour, len(slugs))
    given = zip(slugs, hours, dimensions, named, visits, numbers, strict=True)
    found = {number for (number,) in db.executemany(_ADD_TO, given)}
    missing = [
        (slug, dimension, name, n)
        for slug, dimension, name, n, number in zip(*counts, numbers, strict=True)
        if number not in found
    ]
    placed: list[tuple[str, int, str, str, int]] = []
    for slug, of_slug in groupby(missing, itemgetter(0)):
        held: dict[str, int] = dict(sql.rows(db, _COUNT_VALUES, (slug, hour)))
        for dimension, of_dimension in groupby(of_slug, itemgetter(1)):
            room = most - held.get(dimension, 0)
            values = [(name, n) for _, _, name, n in of_dimension]
            placed += [(slug, hour, dimension, name, n) for name, n in _placed(values, room)]
    db.executemany(_ADD, placed)


def _placed(values: list[tuple[str, int]], room: int) -> Iterable[tuple[str, int]]:
    """Return *values* if there is *room*, else those with the most visits and the sum of the others."""
    if len(values) <= room:
        return values
    named = sorted((one for one in values if one[0]), key=lambda one: (-one[1], one[0]))[: max(0, room)]
    others = sum(n for _, n in values) - sum(n for _, n in named)
    return [*named, (OTHER, others)] if others else named


def _add_visitors(
    db: apsw.Connection, day: int, visitors: Mapping[Slug, Collection[int]], merge: Merge
) -> None:
    sketches = []
    for slug, added in visitors.items():
        held = sql.rows(db, _SKETCH, (slug, day))
        sketches.append((slug, day, merge(held[0][0] if held else None, added)))
    db.executemany(_SET_SKETCH, sketches)


def roll_up(db: apsw.Connection, since: datetime, until: datetime) -> bool:
    """As `VisitStore.roll_up_visits`."""
    for (day,) in sql.rows(db, _DAY_TO_ROLL_UP, (sql.micros(since), sql.micros(until))):
        for (total,) in sql.rows(db, _TOTALS_TO_ROLL_UP, (day,)):
            sql.rows(db, _ROLL_UP, (day, total, by_day_of(total)))
        return True
    return False


def values(
    db: apsw.Connection, slug: Slug, *, since: datetime, until: datetime, limit: int
) -> list[ValueVisits]:
    """As `VisitStore.visit_values`."""
    hours = (sql.micros(since), sql.micros(until))
    if is_total(slug):
        found = sql.rows(db, _VALUES_OF_TOTAL, (*hours, slug, by_day_of(slug), limit))
    else:
        found = sql.rows(db, _VALUES, (slug, *hours, limit))
    return [ValueVisits(Dimension(by), value, visits) for by, value, visits in found]


def kinds(
    db: apsw.Connection, slug: Slug, *, starts: Sequence[datetime], until: datetime
) -> Sequence[PeriodVisits]:
    """As `VisitStore.visit_kinds`."""
    first, end = number_of(starts[0]), number_of(until)
    # All of it is of one moment: days are their hours.
    with db:
        held, of_days = (first, end), []
        if is_total(slug):
            [(oldest, latest)] = sql.rows(db, _HELD, (slug,))
            if oldest is None:
                return []
            held, begin = (oldest, latest), max(first, oldest)
            of_days = sql.rows(db, _KINDS_OF_DAYS, (by_day_of(slug), begin - begin % 24, end))
        plan = PeriodPlan(starts, until, held, {day for day, _, _ in of_days})
        of_hours = sql.rows(db, _KINDS, (slug, sql.json(plan.hours)))
    return plan.summed(of_hours, of_days)


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
