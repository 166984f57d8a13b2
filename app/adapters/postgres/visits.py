"""Visits by what they look like, in the PostgreSQL store."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime

from msgspec import json

from app.adapters.postgres.pool import Connection, rows_of
from app.adapters.visit_rows import Columns, by_day, day_of, folded, slugs_of
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
)
from app.ports import Merge

# Of all processes that add visits to one database.
_LOCK = 0x686F70_7669736974

# One addition at a time: all of them update the rows of '*', and the bound on the values of an hour is exact.
# Each row is found by its key; a plan that reads the table would be made before there are statistics of it.
_BEGIN = f"""
    SELECT pg_advisory_xact_lock({_LOCK}), set_config('enable_seqscan', 'off', true),
        set_config('enable_bitmapscan', 'off', true), set_config('enable_mergejoin', 'off', true),
        set_config('enable_hashjoin', 'off', true)
"""
_BATCHES = """
    INSERT INTO click_batches (id, folded_at)
    SELECT DISTINCT id, %(now)s::timestamptz FROM unnest(%(batches)s::text[]) AS id ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id
"""
# By each slug that a link has or had.
_UNDESCRIBED = """
    SELECT own.slug FROM json_array_elements_text(%(slugs)s::json) AS asked (slug)
        JOIN links AS own ON own.slug = asked.slug
        LEFT JOIN links AS target ON target.slug = coalesce(own.alias_of, own.was_of)
    WHERE NOT coalesce(target.analytics, own.analytics)
"""
# Values that have a row keep it. Others get one while there is room, those with the most visits first.
# Columns come as JSON: the driver takes a microsecond for each value of an array.
_ADD = """
    WITH incoming AS MATERIALIZED (
        SELECT slug, dimension, value, visits::bigint, number FROM ROWS FROM (
            json_array_elements_text(%(slugs)s::json), json_array_elements_text(%(dimensions)s::json),
            json_array_elements_text(%(values)s::json), json_array_elements_text(%(visits)s::json)
        ) WITH ORDINALITY AS given (slug, dimension, value, visits, number)
    ), updated AS (
        UPDATE visit_counts AS counted SET visits = counted.visits + incoming.visits
        FROM incoming
        WHERE counted.slug = incoming.slug AND counted.hour = %(hour)s
            AND counted.dimension = incoming.dimension AND counted.value = incoming.value
            AND incoming.value <> %(other)s
        RETURNING incoming.number
    ), ranked AS (
        SELECT incoming.*, row_number() OVER (
            PARTITION BY slug, dimension, value = %(other)s ORDER BY visits DESC, value
        ) AS rank
        FROM incoming WHERE number NOT IN (SELECT number FROM updated)
    ), counted AS (
        SELECT ranked.*, CASE WHEN rank = 1 AND value <> %(other)s THEN (
            SELECT count(*) FROM visit_counts AS held
            WHERE held.slug = ranked.slug AND held.hour = %(hour)s AND held.dimension = ranked.dimension
                AND held.value <> %(other)s
        ) END AS held
        FROM ranked
    ), placed AS (
        SELECT slug, dimension, value, visits,
            rank + max(held) OVER (PARTITION BY slug, dimension, value = %(other)s) AS place
        FROM counted
    ), added AS MATERIALIZED (
        SELECT slug, dimension, name, sum(visits)::bigint AS visits
        FROM placed, LATERAL (
            SELECT CASE WHEN place <= %(most)s THEN value ELSE %(other)s::text END AS name
        ) AS named
        GROUP BY slug, dimension, name
        ORDER BY slug COLLATE "C", dimension COLLATE "C", name COLLATE "C"
    )
    INSERT INTO visit_counts (slug, hour, dimension, value, visits)
    SELECT slug, %(hour)s, dimension, name, visits FROM added
    ON CONFLICT (slug, hour, dimension, value) DO UPDATE SET visits = visit_counts.visits + excluded.visits
"""
# Rows that are not there cannot be locked.
_BEGIN_SKETCHES = """
    INSERT INTO visit_sketches (slug, day, sketch)
    SELECT slug, %(day)s, ''::bytea FROM unnest(%(slugs)s::text[]) AS slug ORDER BY slug COLLATE "C"
    ON CONFLICT (slug, day) DO NOTHING
"""
_LOCK_SKETCHES = """
    SELECT slug, sketch FROM visit_sketches WHERE day = %(day)s AND slug = ANY(%(slugs)s::text[])
    ORDER BY slug FOR UPDATE
"""
_SET_SKETCHES = """
    UPDATE visit_sketches SET sketch = given.sketch
    FROM unnest(%(slugs)s::text[], %(sketches)s::bytea[]) AS given (slug, sketch)
    WHERE visit_sketches.slug = given.slug AND day = %(day)s
"""
# Of a link that took its slug over, what came before is another's. '*' is none.
_SLUGS = """ARRAY(
        SELECT %(slug)s::text UNION ALL SELECT links.slug FROM links WHERE alias_of = %(slug)s
        UNION ALL SELECT links.slug FROM links WHERE was_of = %(slug)s
    )"""
_BEGAN = "(SELECT created_at FROM links WHERE slug = %(slug)s AND first_version > 1)"
_VALUES = f"""
    WITH summed AS (
        SELECT dimension, value, sum(visits)::bigint AS visits FROM visit_counts
        WHERE slug = ANY({_SLUGS}) AND hour < %(until)s
            AND hour >= greatest(%(since)s, date_trunc('hour', {_BEGAN}, 'UTC'))
        GROUP BY dimension, value
    ), placed AS (
        SELECT *, row_number() OVER (
            PARTITION BY dimension ORDER BY value = %(other)s, visits DESC, value
        ) AS place FROM summed
    )
    SELECT dimension, name, sum(visits)::bigint
    FROM placed, LATERAL (
        SELECT CASE WHEN place <= %(limit)s THEN value ELSE %(other)s::text END AS name
    ) AS named
    GROUP BY dimension, name ORDER BY dimension, name = %(other)s, sum(visits) DESC, name
"""
# Days that are added up, and the hours of the others. It looks at one row of each day: EXISTS would become a
# join with all of them.
_DAYS = f"""
    WITH days AS MATERIALIZED (
        SELECT day FROM generate_series(
            date_trunc('day', %(since)s::timestamptz - interval '1 us', 'UTC') + interval '24 hours',
            %(until)s::timestamptz - interval '24 hours', interval '24 hours'
        ) AS day
        WHERE (
            SELECT true FROM visit_counts WHERE slug = '{ALL_LINKS_BY_DAY}' AND hour = day LIMIT 1
        ) IS NOT NULL
    )
"""
_VALUES_OF_ALL = f"""{_DAYS}, counted AS (
        SELECT dimension, value, visits FROM days, LATERAL (
            SELECT dimension, value, visits FROM visit_counts
            WHERE slug = '{ALL_LINKS_BY_DAY}' AND hour = day OFFSET 0
        ) AS held
        UNION ALL
        SELECT dimension, value, visits FROM generate_series(
            %(since)s::timestamptz, %(until)s::timestamptz - interval '1 hour', interval '1 hour'
        ) AS given (hour), LATERAL (
            SELECT dimension, value, visits FROM visit_counts
            WHERE slug = '{ALL_LINKS}' AND visit_counts.hour = given.hour OFFSET 0
        ) AS held
        WHERE date_trunc('day', given.hour, 'UTC') NOT IN (SELECT day FROM days)
    ), summed AS (
        SELECT dimension, value, sum(visits)::bigint AS visits FROM counted GROUP BY dimension, value
    ), placed AS (
        SELECT *, row_number() OVER (
            PARTITION BY dimension ORDER BY value = %(other)s, visits DESC, value
        ) AS place FROM summed
    )
    SELECT dimension, name, sum(visits)::bigint
    FROM placed, LATERAL (
        SELECT CASE WHEN place <= %(limit)s THEN value ELSE %(other)s::text END AS name
    ) AS named
    GROUP BY dimension, name ORDER BY dimension, name = %(other)s, sum(visits) DESC, name
"""
_IS_ROLLED_UP = f"SELECT 1 FROM visit_counts WHERE slug = '{ALL_LINKS_BY_DAY}' AND hour = %(day)s LIMIT 1"
# The latest day first: it is asked for most.
_DAY_TO_ROLL_UP = f"""
    SELECT day FROM generate_series(
        greatest(
            date_trunc('day', %(since)s::timestamptz - interval '1 us', 'UTC') + interval '24 hours',
            date_trunc('day', (SELECT min(hour) FROM visit_counts WHERE slug = '{ALL_LINKS}'), 'UTC')
        ),
        %(until)s::timestamptz - interval '24 hours', interval '24 hours'
    ) AS day
    WHERE (
            SELECT true FROM visit_counts WHERE slug = '{ALL_LINKS_BY_DAY}' AND hour = day LIMIT 1
        ) IS NULL AND (
            SELECT true FROM visit_counts
            WHERE slug = '{ALL_LINKS}' AND hour >= day AND hour < day + interval '24 hours' LIMIT 1
        )
    ORDER BY day DESC LIMIT 1
"""
_ROLL_UP = f"""
    INSERT INTO visit_counts (slug, hour, dimension, value, visits)
    SELECT '{ALL_LINKS_BY_DAY}', %(day)s, dimension, name, sum(visits)::bigint
    FROM (
        SELECT *, row_number() OVER (
            PARTITION BY dimension, value = %(other)s ORDER BY visits DESC, value
        ) AS place
        FROM (
            SELECT dimension, value, sum(visits) AS visits FROM visit_counts
            WHERE slug = '{ALL_LINKS}' AND hour >= %(day)s
                AND hour < %(day)s::timestamptz + interval '24 hours'
            GROUP BY dimension, value
        ) AS summed
    ) AS placed, LATERAL (
        SELECT CASE WHEN place <= {MAX_DAY_VALUES} THEN value ELSE %(other)s::text END AS name
    ) AS named
    GROUP BY dimension, name
"""
# A look at each hour: between them stand the rows of all other dimensions.
KINDS = f"""
    WITH slugs AS MATERIALIZED (SELECT unnest({_SLUGS}) AS slug)
    SELECT given.hour, counted.value, sum(counted.visits)::bigint
    FROM slugs, generate_series(
            greatest(%(since)s, date_trunc('hour', {_BEGAN}, 'UTC')),
            %(until)s::timestamptz - interval '1 hour', interval '1 hour'
        ) AS given (hour),
        LATERAL (
            SELECT value, visits FROM visit_counts
            WHERE visit_counts.slug = slugs.slug AND hour = given.hour AND dimension = 'kind' OFFSET 0
        ) AS counted
    GROUP BY given.hour, counted.value ORDER BY given.hour, counted.value
"""
KINDS_IN_DAYS = f"""{_DAYS}
    SELECT given.hour, counted.value, counted.visits FROM (
        SELECT day AS hour, '{ALL_LINKS_BY_DAY}' AS slug FROM days
        UNION ALL
        SELECT hour, '{ALL_LINKS}' FROM generate_series(
            %(since)s::timestamptz, %(until)s::timestamptz - interval '1 hour', interval '1 hour'
        ) AS hour
        WHERE date_trunc('day', hour, 'UTC') NOT IN (SELECT day FROM days)
    ) AS given, LATERAL (
        SELECT value, visits FROM visit_counts
        WHERE slug = given.slug AND hour = given.hour AND dimension = 'kind' OFFSET 0
    ) AS counted
    ORDER BY given.hour, counted.value
"""
SKETCHES = f"""
    SELECT sketch FROM visit_sketches
    WHERE slug = ANY({_SLUGS}) AND day <= %(last)s AND sketch <> ''::bytea
        AND day >= greatest(%(first)s, ({_BEGAN} AT TIME ZONE 'UTC')::date)
"""
# The update changes nothing: it makes the row of another process visible.
KEY = """
    INSERT INTO visitor_keys (day, key) VALUES (%(day)s, %(key)s)
    ON CONFLICT (day) DO UPDATE SET key = visitor_keys.key RETURNING key
"""
FORGET_COUNTS = """
    DELETE FROM visit_counts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM visit_counts
        WHERE hour AT TIME ZONE 'UTC' < %(before)s::timestamptz AT TIME ZONE 'UTC'
        ORDER BY hour AT TIME ZONE 'UTC' LIMIT %(limit)s
    ))
"""
FORGET_SKETCHES = """
    DELETE FROM visit_sketches WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM visit_sketches WHERE day < %(before)s LIMIT %(limit)s
    ))
"""
FORGET_KEYS = "DELETE FROM visitor_keys WHERE day < %(before)s"


async def add(
    connection: Connection, described: Sequence[VisitsDescribed], *, now: datetime, merge: Merge
) -> int:
    """As `VisitStore.add_visits`."""
    async with connection.transaction():
        await connection.execute(_BEGIN.encode())
        of_batch = {one.batch: one for one in described}
        new = await rows_of(connection, _BATCHES, {"batches": list(of_batch), "now": now})
        added = [of_batch[batch] for (batch,) in new]
        undescribed = await rows_of(
            connection, _UNDESCRIBED, {"slugs": json.encode(slugs_of(added)).decode()}
        )
        together = await asyncio.to_thread(folded, added, {slug for (slug,) in undescribed})
        for hour, counts in together.counts.items():
            await _add_counts(connection, hour, counts, MAX_VALUES)
            begin = day_of(hour)
            if await rows_of(connection, _IS_ROLLED_UP, {"day": begin}):
                await _add_counts(connection, begin, by_day(counts), MAX_DAY_VALUES)
        for day, visitors in together.visitors.items():
            await _add_visitors(connection, day, visitors, merge)
    return len(described) - len(new)


async def _add_counts(connection: Connection, hour: datetime, counts: Columns, most: int) -> None:
    columns = {name: json.encode(column).decode() for name, column in counts._asdict().items()}
    given = {**columns, "hour": hour, "most": most, "other": OTHER}
    await connection.execute(_ADD.encode(), given)


async def _add_visitors(
    connection: Connection, day: date, visitors: Mapping[Slug, Collection[int]], merge: Merge
) -> None:
    of_day = {"day": day, "slugs": list(visitors)}
    await connection.execute(_BEGIN_SKETCHES.encode(), of_day, prepare=False)
    held = await rows_of(connection, _LOCK_SKETCHES, of_day)

    def merged() -> list[bytes]:
        return [merge(bytes(sketch) or None, visitors[slug]) for slug, sketch in held]

    sketches = await asyncio.to_thread(merged)
    given = {**of_day, "slugs": [slug for slug, _ in held], "sketches": sketches}
    await connection.execute(_SET_SKETCHES.encode(), given, prepare=False)


async def roll_up(connection: Connection, *, since: datetime, until: datetime) -> bool:
    """As `VisitStore.roll_up_visits`."""
    async with connection.transaction():
        await connection.execute(_BEGIN.encode())
        for (day,) in await rows_of(connection, _DAY_TO_ROLL_UP, {"since": since, "until": until}):
            await connection.execute(_ROLL_UP.encode(), {"day": day, "other": OTHER})
            return True
    return False


async def values(
    connection: Connection, slug: Slug, *, since: datetime, until: datetime, limit: int
) -> list[ValueVisits]:
    """As `VisitStore.visit_values`."""
    asked = {"slug": slug, "since": since, "until": until, "limit": limit, "other": OTHER}
    found = await rows_of(connection, _VALUES_OF_ALL if slug == ALL_LINKS else _VALUES, asked)
    return [ValueVisits(Dimension(by), value, visits) for by, value, visits in found]


async def forget(connection: Connection, *, before: datetime, limit: int) -> int:
    """As `VisitStore.forget_visits`."""
    counts = await connection.execute(FORGET_COUNTS.encode(), {"before": before, "limit": limit})
    days = {"before": before.date(), "limit": limit}
    sketches = await connection.execute(FORGET_SKETCHES.encode(), days)
    return counts.rowcount + sketches.rowcount
