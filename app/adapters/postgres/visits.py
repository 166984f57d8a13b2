"""Visits by what they look like, in the PostgreSQL store."""

from __future__ import annotations

import asyncio
from datetime import datetime

from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, rows_of
from app.adapters.visit_rows import Row, visit_rows, visitors_by_slug
from app.domain.events import VisitsDescribed
from app.domain.link import Slug
from app.domain.visits import MAX_VALUES, OTHER, Dimension, ValueVisits
from app.ports import Merge

_BATCH = """
    INSERT INTO click_batches (id, folded_at) VALUES (%(batch)s, %(now)s)
    ON CONFLICT (id) DO NOTHING RETURNING id
"""
# Values that have a row keep it; of the others, those with the most visits get the rows that are left. Rows
# are added in the order of their key, so that two batches wait for each other instead of deadlocking.
_ADD = """
    WITH incoming AS MATERIALIZED (
        SELECT slug, dimension, value, visits
        FROM unnest(%(slugs)s::text[], %(dimensions)s::text[], %(values)s::text[], %(visits)s::bigint[])
            AS given (slug, dimension, value, visits)
    ), held AS MATERIALIZED (
        SELECT slug, dimension, count(*) AS rows FROM visit_counts
        WHERE hour = %(hour)s AND slug IN (SELECT DISTINCT slug FROM incoming) AND value <> %(other)s
        GROUP BY slug, dimension
    ), placed AS (
        SELECT incoming.*, counted.value IS NOT NULL AS is_held, coalesce(held.rows, 0) + row_number() OVER (
            PARTITION BY incoming.slug, incoming.dimension, counted.value IS NULL
            ORDER BY incoming.visits DESC, incoming.value
        ) AS place
        FROM incoming
        LEFT JOIN held ON held.slug = incoming.slug AND held.dimension = incoming.dimension
        LEFT JOIN visit_counts AS counted ON counted.slug = incoming.slug AND counted.hour = %(hour)s
            AND counted.dimension = incoming.dimension AND counted.value = incoming.value
    ), added AS MATERIALIZED (
        SELECT slug, dimension, name, sum(visits)::bigint AS visits
        FROM placed, LATERAL (
            SELECT CASE WHEN is_held OR place <= %(most)s THEN value ELSE %(other)s::text END AS name
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
        SELECT ctid FROM visit_counts WHERE hour < %(before)s LIMIT %(limit)s
    ))
"""
FORGET_SKETCHES = """
    DELETE FROM visit_sketches WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM visit_sketches WHERE day < %(before)s LIMIT %(limit)s
    ))
"""
FORGET_KEYS = "DELETE FROM visitor_keys WHERE day < %(before)s"


async def add(connection: Connection, described: VisitsDescribed, *, now: datetime, merge: Merge) -> bool:
    """As `VisitStore.add_visits`."""
    rows = visit_rows(described)
    async with connection.transaction():
        if not await rows_of(connection, _BATCH, {"batch": described.batch, "now": now}):
            return False
        await connection.execute(
            _ADD.encode(), {**_columns(rows), "hour": described.hour, "most": MAX_VALUES}
        )
        await _merge(connection, described, merge)
    return True


async def _merge(connection: Connection, described: VisitsDescribed, merge: Merge) -> None:
    visitors = visitors_by_slug(described)
    if not visitors:
        return
    of_day = {"day": described.hour.date(), "slugs": list(visitors)}
    await connection.execute(_BEGIN_SKETCHES.encode(), of_day)
    held = await rows_of(connection, _LOCK_SKETCHES, of_day)

    def merged() -> list[bytes]:
        return [merge(bytes(sketch) or None, visitors[slug]) for slug, sketch in held]

    sketches = await asyncio.to_thread(merged)
    given = {**of_day, "slugs": [slug for slug, _ in held], "sketches": sketches}
    await connection.execute(_SET_SKETCHES.encode(), given)


async def values(
    connection: Connection, slug: Slug, *, since: datetime, until: datetime, limit: int
) -> list[ValueVisits]:
    """As `VisitStore.visit_values`."""
    asked = {"slug": slug, "since": since, "until": until, "limit": limit, "other": OTHER}
    found = await rows_of(connection, _VALUES, asked)
    return [ValueVisits(Dimension(by), value, visits) for by, value, visits in found]


async def forget(connection: Connection, *, before: datetime, limit: int) -> int:
    """As `VisitStore.forget_visits`."""
    counts = await connection.execute(FORGET_COUNTS.encode(), {"before": before, "limit": limit})
    days = {"before": before.date(), "limit": limit}
    sketches = await connection.execute(FORGET_SKETCHES.encode(), days)
    return counts.rowcount + sketches.rowcount


def _columns(rows: list[Row]) -> sql.Parameters:
    return {
        "slugs": [row.slug for row in rows],
        "dimensions": [str(row.dimension) for row in rows],
        "values": [row.value for row in rows],
        "visits": [row.visits for row in rows],
        "other": OTHER,
    }
