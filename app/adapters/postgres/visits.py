"""Visits by what they look like, in the PostgreSQL store."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime

from msgspec import json

from app.adapters.postgres.pool import Connection, rows_of
from app.adapters.visit_periods import PeriodPlan, number_of
from app.adapters.visit_rows import (
    TOTALS_AT_A_TIME,
    Columns,
    Traits,
    by_day,
    day_of,
    folded,
    parts_by_tags,
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
# Links without statistics and those with tags, by each slug that they have or had.
_TRAITS = """
    SELECT own.slug, coalesce(target.analytics, own.analytics), coalesce(target.tags, own.tags)
    FROM json_array_elements_text(%(slugs)s::json) AS asked (slug)
        JOIN links AS own ON own.slug = asked.slug
        LEFT JOIN links AS target ON target.slug = coalesce(own.alias_of, own.was_of)
    WHERE NOT coalesce(target.analytics, own.analytics) OR coalesce(target.tags, own.tags) <> '{}'
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
# Days of a total that are added up, and the hours of the others. It looks at one row of each day: with EXISTS
# the plan joins all of them.
_DAYS = """
    WITH days AS MATERIALIZED (
        SELECT day FROM generate_series(
            date_trunc('day', %(since)s::timestamptz - interval '1 us', 'UTC') + interval '24 hours',
            %(until)s::timestamptz - interval '24 hours', interval '24 hours'
        ) AS day
        WHERE (
            SELECT true FROM visit_counts WHERE slug = %(days)s AND hour = day LIMIT 1
        ) IS NOT NULL
    )
"""
_VALUES_OF_TOTAL = f"""{_DAYS}, counted AS (
        SELECT dimension, value, visits FROM days, LATERAL (
            SELECT dimension, value, visits FROM visit_counts
            WHERE slug = %(days)s AND hour = day OFFSET 0
        ) AS held
        UNION ALL
        SELECT dimension, value, visits FROM generate_series(
            %(since)s::timestamptz, %(until)s::timestamptz - interval '1 hour', interval '1 hour'
        ) AS given (hour), LATERAL (
            SELECT dimension, value, visits FROM visit_counts
            WHERE slug = %(slug)s AND visit_counts.hour = given.hour OFFSET 0
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
_ROLLED_UP = f"""
    SELECT total FROM unnest(%(totals)s::text[]) AS total WHERE (
        SELECT true FROM visit_counts
        WHERE slug = '{ALL_LINKS_BY_DAY}' || substr(total, {len(ALL_LINKS) + 1}) AND hour = %(day)s LIMIT 1
    )
"""
# The latest day first: it is asked for most. All links are added up last, so a day without them is not done.
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
# A look-up for each total, wherever the next one begins. ALL_LINKS comes last.
_ROLL_UP = f"""
    WITH RECURSIVE totals (slug) AS (
        SELECT '{ALL_LINKS}' COLLATE "C" UNION ALL SELECT (
            SELECT min(slug) FROM visit_counts WHERE slug > totals.slug AND slug < '{ALL_LINKS_BY_DAY}'
        ) FROM totals WHERE totals.slug IS NOT NULL
    ), chosen AS MATERIALIZED (
        SELECT slug, '{ALL_LINKS_BY_DAY}' || substr(slug, {len(ALL_LINKS) + 1}) AS days FROM totals
        WHERE (
                SELECT true FROM visit_counts AS held WHERE held.slug = totals.slug AND held.hour >= %(day)s
                    AND held.hour < %(day)s::timestamptz + interval '24 hours' LIMIT 1
            ) AND (
                SELECT true FROM visit_counts AS held
                WHERE held.slug = '{ALL_LINKS_BY_DAY}' || substr(totals.slug, {len(ALL_LINKS) + 1})
                    AND held.hour = %(day)s LIMIT 1
            ) IS NULL
        ORDER BY slug DESC LIMIT {TOTALS_AT_A_TIME}
    )
    INSERT INTO visit_counts (slug, hour, dimension, value, visits)
    SELECT days, %(day)s, dimension, name, sum(visits)::bigint
    FROM (
        SELECT *, row_number() OVER (
            PARTITION BY days, dimension, value = %(other)s ORDER BY visits DESC, value
        ) AS place
        FROM (
            SELECT days, dimension, value, sum(visits) AS visits FROM chosen, LATERAL (
                SELECT dimension, value, visits FROM visit_counts AS held
                WHERE held.slug = chosen.slug AND hour >= %(day)s
                    AND hour < %(day)s::timestamptz + interval '24 hours' OFFSET 0
            ) AS counted
            GROUP BY days, dimension, value
        ) AS summed
    ) AS placed, LATERAL (
        SELECT CASE WHEN place <= {MAX_DAY_VALUES} THEN value ELSE %(other)s::text END AS name
    ) AS named
    GROUP BY days, dimension, name
"""
# A look at each hour: between them stand the rows of all other dimensions.
KINDS = f"""
    WITH slugs AS MATERIALIZED (SELECT unnest({_SLUGS}) AS slug)
    SELECT given.number, counted.value, sum(counted.visits)::bigint
    FROM slugs, (
            SELECT text::bigint AS number, to_timestamp(text::bigint * 3600) AS hour
            FROM json_array_elements_text(%(hours)s::json) AS text
        ) AS given,
        LATERAL (
            SELECT value, visits FROM visit_counts
            WHERE visit_counts.slug = slugs.slug AND hour = given.hour AND dimension = 'kind' OFFSET 0
        ) AS counted
    WHERE given.hour >= coalesce(date_trunc('hour', {_BEGAN}, 'UTC'), '-infinity')
    GROUP BY given.number, counted.value
"""
_KINDS_OF_DAYS = """
    SELECT (extract(epoch FROM day) / 3600)::bigint, counted.value, counted.visits
    FROM generate_series(
            %(first)s::timestamptz, %(until)s::timestamptz - interval '1 us', interval '24 hours'
        ) AS day,
        LATERAL (
            SELECT value, visits FROM visit_counts
            WHERE slug = %(days)s AND hour = day AND dimension = 'kind' OFFSET 0
        ) AS counted
"""
_HELD = """
    SELECT (SELECT min(hour) FROM visit_counts WHERE slug = %(slug)s),
        (SELECT max(hour) FROM visit_counts WHERE slug = %(slug)s)
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
    found = await rows_of(connection, _TRAITS, {"slugs": json.encode(slugs_of(described)).decode()})
    undescribed = {slug for slug, is_described, _ in found if not is_described}
    traits = Traits(undescribed, {slug: tags for slug, _, tags in found})
    known = 0
    for part in parts_by_tags(described, traits):
        known += await _add(connection, part, now, merge, traits)
    return known


async def _add(
    connection: Connection, described: Sequence[VisitsDescribed], now: datetime, merge: Merge, traits: Traits
) -> int:
    async with connection.transaction():
        await connection.execute(_BEGIN.encode())
        of_batch = {one.batch: one for one in described}
        new = await rows_of(connection, _BATCHES, {"batches": list(of_batch), "now": now})
        added = [of_batch[batch] for (batch,) in new]
        together = await asyncio.to_thread(folded, added, traits)
        for hour, counts in together.counts.items():
            await _add_counts(connection, hour, counts, MAX_VALUES)
            begin = day_of(hour)
            of_day = {"day": begin, "totals": totals_in(counts)}
            added_up = await rows_of(connection, _ROLLED_UP, of_day)
            if added_up:
                days = by_day(counts, {slug for (slug,) in added_up})
                await _add_counts(connection, begin, days, MAX_DAY_VALUES)
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
    if is_total(slug):
        found = await rows_of(connection, _VALUES_OF_TOTAL, {**asked, "days": by_day_of(slug)})
    else:
        found = await rows_of(connection, _VALUES, asked)
    return [ValueVisits(Dimension(by), value, visits) for by, value, visits in found]


async def kinds(
    connection: Connection, slug: Slug, *, starts: Sequence[datetime], until: datetime
) -> Sequence[PeriodVisits]:
    """As `VisitStore.visit_kinds`."""
    held, of_days = (number_of(starts[0]), number_of(until)), []
    # All of it is of one moment: days are their hours.
    async with connection.transaction():
        await connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if is_total(slug):
            [(oldest, latest)] = await rows_of(connection, _HELD, {"slug": slug})
            if oldest is None:
                return []
            held = number_of(oldest), number_of(latest)
            asked = {
                "days": by_day_of(slug),
                "first": day_of(max(starts[0], oldest).astimezone(UTC)),
                "until": until,
            }
            of_days = await rows_of(connection, _KINDS_OF_DAYS, asked)
        plan = PeriodPlan(starts, until, held, {day for day, _, _ in of_days})
        hours = {"slug": slug, "hours": json.encode(plan.hours).decode()}
        of_hours = await rows_of(connection, KINDS, hours)
    return plan.summed(of_hours, of_days)


async def forget(connection: Connection, *, before: datetime, limit: int) -> int:
    """As `VisitStore.forget_visits`."""
    counts = await connection.execute(FORGET_COUNTS.encode(), {"before": before, "limit": limit})
    days = {"before": before.date(), "limit": limit}
    sketches = await connection.execute(FORGET_SKETCHES.encode(), days)
    return counts.rowcount + sketches.rowcount
