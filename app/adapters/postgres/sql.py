"""
The statements of the PostgreSQL store, and the conversions between rows and values.

All of them name the columns of a link, which are declared here once, so they stand together; listings and
blocks have modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.adapters.key_scopes import read_scopes, stored_scopes
from app.domain.events import ClicksCounted, LinkChanged
from app.domain.link import Link, LinkFields, Resolution, Slug
from app.domain.link_key import AFTER_OTHERS, DEFAULT_ID, keys_between
from app.domain.origin import Origin
from app.ports import IMPORT_SCOPE, MAX_QUOTA_LEASE, OUTBOX_GRACE_S, ApiKey, OutboxEvent, Reusable
from app.wire import decode_origin, encode_origin

Row = tuple[Any, ...]
Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Column:
    """Its type in PostgreSQL, and the conversions to a parameter and from a result, if any."""

    type: str
    write: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] | None = None


# Each field of `LinkFields`, by its name. Statements and conversions below are derived from this.
FIELDS = {
    "long_url": _Column("text"),
    "title": _Column("text"),
    "tags": _Column("text[]", write=list, read=tuple),
    "redirect_code": _Column("smallint"),
    "valid_from": _Column("timestamptz"),
    "expires_at": _Column("timestamptz"),
    "forward_query": _Column("boolean"),
    "enabled": _Column("boolean"),
    "max_visits": _Column("bigint"),
    "external_id": _Column("text"),
    "override_query": _Column("boolean"),
    "expired_url": _Column("text"),
    "robots": _Column("text"),
    "analytics": _Column("boolean"),
}
_NEW = {
    "slug": "text",
    **{name: column.type for name, column in FIELDS.items()},
    "version": "bigint",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
_NEW_OF_LINK = [name for name in _NEW if name not in FIELDS]
_AFTER_FIELDS = (
    *("version", "created_at", "updated_at", "removed_at", "visits", "epoch", "owner"),
    *("aliases", "alias_of"),
)
_END_OF_FIELDS = 1 + len(FIELDS)
_READS = {name: column.read for name, column in FIELDS.items() if column.read is not None}
_WRITES = {name: column.write for name, column in FIELDS.items() if column.write is not None}
# Read with the links, in one snapshot: what is read before a failover stays marked as such.
_EPOCH = "(SELECT epoch FROM store_epoch)"
# Until a link is handed over its column is empty: the owner is the key that made it, in any release. Written
# out like the expression of the index.
OWNER = "nullif(coalesce(links.owner, nullif(links.created_by, 'cli')), '')"
LINK = f"""{", ".join(_NEW)}, removed_at,
    coalesce((SELECT clicks FROM click_totals WHERE click_totals.slug = links.slug), 0) AS visits,
    {_EPOCH} AS epoch, {OWNER} AS owner, links.aliases, links.alias_of"""
LINK_COLUMNS = _END_OF_FIELDS + len(_AFTER_FIELDS)
_NEW_TYPES = ", ".join(f"{name} {type_}" for name, type_ in _NEW.items())
SET_FIELDS = ", ".join(f"{name} = %({name})s::{column.type}" for name, column in FIELDS.items())
# Which version it belongs to, and who makes it: the trigger of link_history reads it.
CHANGED_BY = "changed_by = (version + 1) || ' ' || %(actor)s::text"
# Each field of `Resolution`, as SQL. A disabled or removed link has no target.
_RESOLUTION = {
    "slug": "links.slug",
    "version": "{link}.version",
    "long_url": "CASE WHEN {link}.enabled AND {link}.removed_at IS NULL THEN {link}.long_url END",
    "redirect_code": "{link}.redirect_code",
    "forward_query": "{link}.forward_query",
    "valid_from": "extract(epoch FROM {link}.valid_from)::float8",
    "expires_at": "extract(epoch FROM {link}.expires_at)::float8",
    "metered": "{link}.max_visits IS NOT NULL",
    "epoch": _EPOCH,
    "override_query": "{link}.override_query",
    "expired_url": "CASE WHEN {link}.removed_at IS NULL THEN {link}.expired_url END",
    "robots": "CASE WHEN {link}.removed_at IS NULL THEN {link}.robots END",
    "spends": "CASE WHEN target.max_visits IS NOT NULL THEN target.slug END",
}


def _resolved(column: str) -> str:
    """Return *column* of the link, or of that whose alias it is."""
    if "{link}" not in column:
        return column
    of_target, own = column.format(link="target"), column.format(link="links")
    return f"CASE WHEN target.slug IS NOT NULL THEN {of_target} ELSE {own} END"


FIRST_ATTEMPT_AT = f"now() + make_interval(secs => {OUTBOX_GRACE_S})"

# One statement for any number of links. Ids are drawn in the order of the request, so that listings
# keep it; rows are inserted in the order of their slugs, so that two calls with the same slugs wait
# for each other instead of deadlocking.
INSERT_LINKS = f"""
    WITH asked AS MATERIALIZED (
        SELECT nextval('links_id_seq') AS id, a.*
        FROM json_to_recordset(%(links)s::json) AS a({_NEW_TYPES})
    ), stored AS (
        INSERT INTO links (id, {", ".join(_NEW)}, created_by)
        SELECT asked.*, %(actors)s::jsonb ->> slug FROM asked ORDER BY slug COLLATE "C", id
        ON CONFLICT DO NOTHING RETURNING slug
    )
    INSERT INTO outbox (slug, version, next_attempt_at, origin)
    SELECT slug, 1, {FIRST_ATTEMPT_AT}, %(origins)s::jsonb ->> slug FROM stored
    RETURNING id, slug, version, origin, {_EPOCH}
"""

# The same for links with a past, each slug once, and without events: see `ImportStore.add_imported`.
INSERT_IMPORTED = f"""
    WITH asked AS MATERIALIZED (
        SELECT nextval('links_id_seq') AS id, a.*
        FROM json_to_recordset(%(links)s::json)
        AS a({_NEW_TYPES}, visits bigint, visits_taken bigint, owner text)
    ), stored AS (
        INSERT INTO links (id, {", ".join(_NEW)}, visits_taken, owner, created_by)
        SELECT id, {", ".join(_NEW)}, visits_taken, coalesce(owner, ''), %(actor)s::text FROM asked
        ORDER BY slug COLLATE "C", id
        ON CONFLICT DO NOTHING RETURNING slug
    ), counted AS (
        INSERT INTO click_totals (slug, clicks)
        SELECT slug, visits FROM stored JOIN asked USING (slug) WHERE visits > 0
        ON CONFLICT (slug) DO UPDATE SET clicks = excluded.clicks
    )
    SELECT slug FROM stored
"""
# Waits for a concurrent transaction that stores the same keys, always in the same order.
INSERT_KEYS = f"""
    INSERT INTO idempotency (scope, key, fingerprint, slugs, created_at)
    SELECT '{IMPORT_SCOPE}', key, ''::bytea, ARRAY[slug], %(now)s
    FROM unnest(%(keys)s::text[], %(slugs)s::text[]) AS asked(key, slug) ORDER BY key COLLATE "C"
    ON CONFLICT (scope, key) DO NOTHING RETURNING key
"""
DELETE_KEYS = f"DELETE FROM idempotency WHERE scope = '{IMPORT_SCOPE}' AND key = ANY(%(keys)s::text[])"
SELECT_IMPORTED = f"""
    SELECT key, slugs[1] FROM idempotency WHERE scope = '{IMPORT_SCOPE}' AND key = ANY(%(keys)s::text[])
"""


# The links of a batch. What is new is stored in the order of `INSERT_LINKS`, at any version; it raises if
# there is one already. What all of them have in common stands apart: a large document costs the most to read.
WRITE_ADDED = f"""
    WITH asked AS MATERIALIZED (
        SELECT nextval('links_id_seq') AS id,
            {", ".join(f"coalesce(one.{name}, common.{name}) AS {name}" for name in _NEW)}
        FROM json_to_record(%(common)s::json) AS common({_NEW_TYPES})
            CROSS JOIN json_to_recordset(%(links)s::json) AS one({_NEW_TYPES})
    ), stored AS (
        INSERT INTO links (id, {", ".join(_NEW)}, created_by)
        SELECT asked.*, %(actor)s::text FROM asked ORDER BY slug COLLATE "C", id
        RETURNING slug, version
    )
    INSERT INTO outbox (slug, version, next_attempt_at, origin)
    SELECT slug, version, {FIRST_ATTEMPT_AT}, %(origin)s::text FROM stored
    RETURNING id, slug, version, origin, {_EPOCH}
"""
# The same for a link with aliases; without a row if there is one already.
WRITE_ADDRESSED = WRITE_ADDED.replace(
    "RETURNING slug, version", "ON CONFLICT DO NOTHING RETURNING slug, version", 1
)
WRITE_CHANGED = f"""
    WITH asked AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(links)s::json)
        AS a({_NEW_TYPES}, removed_at timestamptz, replaced bigint, owner text)
    ), stored AS (
        UPDATE links SET {", ".join(f"{name} = asked.{name}" for name in FIELDS)}, version = asked.version,
            updated_at = asked.updated_at, removed_at = asked.removed_at, owner = coalesce(asked.owner, ''),
            changed_by = asked.version || ' ' || %(actor)s::text
        FROM asked WHERE links.slug = asked.slug AND links.version = asked.replaced
        RETURNING links.slug, links.version
    )
    INSERT INTO outbox (slug, version, next_attempt_at, origin)
    SELECT slug, version, {FIRST_ATTEMPT_AT}, %(origin)s::text FROM stored
    RETURNING id, slug, version, origin, {_EPOCH}
"""
# Batches that may make the same link wait for each other, always in the same order.
LOCK_REUSABLE = """
    SELECT pg_advisory_xact_lock(%(class)s::integer, number)
    FROM (SELECT number FROM unnest(%(numbers)s::integer[]) AS asked(number) ORDER BY number) AS sorted
"""
# The conditions are those of the index.
SELECT_REUSABLE = f"""
    WITH found AS (
        SELECT asked.number, one.id
        FROM json_to_recordset(%(asked)s::json) AS asked(
            number integer, long_url text, title text, tags text[], redirect_code smallint,
            forward_query boolean, override_query boolean, analytics boolean,
            first text, "end" text, later text, owner text
        ) CROSS JOIN LATERAL (
            SELECT links.id FROM links
            WHERE hashtextextended(links.long_url, 0) = hashtextextended(asked.long_url, 0)
                AND links.long_url = asked.long_url
                AND links.removed_at IS NULL AND links.enabled AND links.valid_from IS NULL
                AND links.expires_at IS NULL AND links.max_visits IS NULL AND links.external_id IS NULL
                AND links.expired_url IS NULL AND links.robots IS NULL
                AND links.title = asked.title AND links.tags = asked.tags
                AND links.redirect_code = asked.redirect_code AND links.forward_query = asked.forward_query
                AND links.override_query = asked.override_query AND links.analytics = asked.analytics
                AND (links.slug >= asked.first AND links.slug < asked."end" OR links.slug >= asked.later)
                AND (asked.owner IS NULL OR {OWNER} = asked.owner)
                AND NOT EXISTS (
                    SELECT 1 FROM blocks
                    WHERE kind = 'slug' AND NOT removed
                        AND value = substr(links.slug, length(asked.first) + 1)
                )
            ORDER BY links.id LIMIT 1
        ) AS one
    )
    SELECT {LINK}, number FROM links JOIN found USING (id)
"""


def changing(update: str) -> str:
    """Return a statement that runs *update* and returns each link with the id of its outbox row."""
    return f"""
        WITH changed AS ({update} RETURNING {LINK}), noted AS (
            INSERT INTO outbox (slug, version, next_attempt_at, origin)
            SELECT slug, version, {FIRST_ATTEMPT_AT}, %(origin)s::text FROM changed
            RETURNING id, slug, origin
        )
        SELECT changed.*, noted.id, noted.origin FROM changed JOIN noted USING (slug)
    """


UPDATE_LINK = changing(f"""
    UPDATE links SET {SET_FIELDS}, version = version + 1, updated_at = %(now)s, {CHANGED_BY},
        owner = coalesce(%(owner)s::text, owner)
    WHERE slug = %(slug)s
""")
REMOVE_LINK = changing(f"""
    UPDATE links SET removed_at = %(now)s, updated_at = %(now)s, version = version + 1, {CHANGED_BY}
    WHERE slug = %(slug)s
""")
TOUCH_LINKS = changing("UPDATE links SET version = version + 1 WHERE slug = ANY(%(slugs)s)")
# Always in the same order: two calls cannot deadlock.
LOCK_LINKS = 'SELECT 1 FROM links WHERE slug = ANY(%(slugs)s) ORDER BY slug COLLATE "C" FOR UPDATE'
LOCK_LINK = f"SELECT {LINK} FROM links WHERE slug = %(slug)s FOR UPDATE"
# The slug of the link that a slug is of.
NAMED = "coalesce((SELECT alias_of FROM links WHERE slug = %(slug)s), %(slug)s)"
SELECT_LINK = f"SELECT {LINK} FROM links WHERE slug = {NAMED}"
# Each with the slug that was asked for.
SELECT_LINKS = f"""
    SELECT {LINK}, asked FROM (
        SELECT slug AS asked, coalesce(alias_of, slug) AS named FROM links WHERE slug = ANY(%(slugs)s)
    ) AS asked JOIN links ON links.slug = named
"""
# Likewise, also by the slugs that links had before.
SELECT_SERVED = SELECT_LINKS.replace("coalesce(alias_of, slug)", "coalesce(alias_of, was_of, slug)")
# Written out like the condition of the index.
_HAS_ID = "external_id = ANY(%(ids)s::text[]) AND external_id IS NOT NULL AND removed_at IS NULL"
SELECT_EXTERNAL = f"SELECT {LINK} FROM links WHERE {_HAS_ID}"
# The rows as they are: that of an alias has the owner of its link.
_OF_ALIAS = (
    f"(SELECT {OWNER.replace('links.', 'named.')} FROM links AS named WHERE named.slug = links.alias_of)"
)
_LINK_OR_ALIAS = LINK.replace(OWNER, f"CASE WHEN links.alias_of IS NULL THEN {OWNER} ELSE {_OF_ALIAS} END")
SELECT_NAMED = f"SELECT {_LINK_OR_ALIAS} FROM links WHERE slug = ANY(%(slugs)s::text[]) OR ({_HAS_ID})"
# Always in the same order: two batches wait for each other instead of deadlocking.
LOCK_NAMED = f'{SELECT_NAMED} ORDER BY slug COLLATE "C" FOR UPDATE'
RESOLVE = f"""
    SELECT {", ".join(_resolved(_RESOLUTION[name]) for name in Resolution.__struct_fields__)}
    FROM links LEFT JOIN links AS target ON target.slug = links.alias_of
    WHERE links.slug = ANY(%(slugs)s)
"""
SELECT_PAGE = f"""
    SELECT {LINK}, id FROM links WHERE removed_at IS NULL AND id < %(before)s
    ORDER BY id DESC LIMIT %(limit)s
"""
SELECT_SPENT = "SELECT slug, visits_taken FROM links WHERE slug = ANY(%(slugs)s::text[])"
SELECT_EXPORT = f"""
    SELECT {LINK}, visits_taken, id FROM links WHERE removed_at IS NULL AND id > %(after)s
    ORDER BY id LIMIT %(limit)s
"""
# SKIP LOCKED: concurrent calls take other rows instead of waiting. Two ranges of one index, and an array of
# ids: otherwise a backlog is read whole for each batch of it, by the planner's choice.
TAKE_EVENTS = """
    WITH due AS MATERIALIZED (
        SELECT id FROM outbox WHERE next_attempt_at <= now()
        ORDER BY next_attempt_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ), far AS MATERIALIZED (
        SELECT id FROM outbox WHERE next_attempt_at > now() + make_interval(secs => %(longest_s)s)
        ORDER BY next_attempt_at, id LIMIT greatest(%(limit)s - (SELECT count(*) FROM due), 0)
        FOR UPDATE SKIP LOCKED
    )
    UPDATE outbox SET next_attempt_at = now() + make_interval(secs => %(lease_s)s), attempts = attempts + 1
    WHERE id = ANY(ARRAY(SELECT id FROM due UNION ALL SELECT id FROM far))
    RETURNING id, slug, version, origin, extract(epoch FROM created_at)::float8
"""
DROP_EVENTS = "DELETE FROM outbox WHERE id = ANY(%(ids)s::bigint[])"
# A row from the future is as old as the clock was set back, at least: it must not hide.
OUTBOX_DEPTH = """
    SELECT count(*), coalesce(
        greatest(extract(epoch FROM now() - min(created_at)), extract(epoch FROM max(created_at) - now())), 0
    )::float8, min(id) FROM outbox
"""
# Waits for a concurrent transaction that stores the same request.
INSERT_REQUEST = """
    INSERT INTO idempotency (scope, key, fingerprint, slugs, created_at)
    VALUES (%(scope)s, %(key)s, %(fingerprint)s, %(slugs)s, %(now)s) ON CONFLICT (scope, key) DO NOTHING
"""
SELECT_REQUEST = "SELECT fingerprint, slugs FROM idempotency WHERE scope = %(scope)s AND key = %(key)s"
SELECT_ANSWER = "SELECT fingerprint, answer FROM idempotency WHERE scope = %(scope)s AND key = %(key)s"
SET_ANSWER = "UPDATE idempotency SET answer = %(answer)s WHERE scope = %(scope)s AND key = %(key)s"
FORGET_REQUESTS = f"DELETE FROM idempotency WHERE created_at < %(before)s AND scope <> '{IMPORT_SCOPE}'"
# One statement, so one transaction: a known batch yields no rows to add. Rows are added in the order
# of their slugs, so that two batches wait for each other instead of deadlocking.
ADD_CLICKS = """
    WITH batch AS (
        INSERT INTO click_batches (id, folded_at) VALUES (%(batch)s, %(now)s)
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), counted AS MATERIALIZED (
        SELECT coalesce(alias_of, was_of, key) COLLATE "C" AS slug, sum(value::bigint)::bigint AS clicks
        FROM batch CROSS JOIN json_each_text(%(clicks)s::json) JOIN links ON links.slug = key
        -- Older ones are those of the link that had the slug before.
        WHERE first_version IS NULL OR first_version = 1 OR date_trunc('hour', created_at, 'UTC') <= %(hour)s
        GROUP BY 1 ORDER BY 1
    ), total AS (
        INSERT INTO click_totals (slug, clicks) SELECT slug, clicks FROM counted
        ON CONFLICT (slug) DO UPDATE SET clicks = click_totals.clicks + excluded.clicks
        RETURNING slug, clicks
    ), first AS (
        -- A total of no more than what was added was nothing before.
        INSERT INTO link_events_new (kind, slug, version, past, at)
        SELECT 'link.first_visit', slug, version,
            coalesce((SELECT max(id) FROM link_history WHERE link = links.id), 0), %(now)s
        FROM total JOIN counted USING (slug, clicks) JOIN links USING (slug) ORDER BY slug COLLATE "C"
    ), hourly AS (
        INSERT INTO click_hours (slug, hour, clicks) SELECT slug, %(hour)s, clicks FROM counted
        ON CONFLICT (slug, hour) DO UPDATE SET clicks = click_hours.clicks + excluded.clicks
    )
    SELECT id FROM batch
"""
SELECT_HOURS = """
    SELECT hour, clicks FROM click_hours WHERE slug = %(slug)s AND hour >= %(since)s AND hour < %(until)s
"""
# Rolled back; the id is none that a batch can have.
TRY_WRITE = b"INSERT INTO click_batches (id, folded_at) VALUES (gen_random_uuid(), now())"
FORGET_BATCHES = "DELETE FROM click_batches WHERE folded_at < %(before)s"
_OF_LINK = "coalesce((SELECT coalesce(alias_of, was_of) FROM links WHERE slug = %(slug)s), %(slug)s)"
# No link changes its slug while clicks are added to it.
SHARE_SLUGS, KEEP_SLUGS = (
    f"SELECT pg_advisory_xact_lock{shared}(46767165)".encode() for shared in ("_shared", "")
)
# A concurrent call waits for the row lock, and then sees the remainder.
LEASE_QUOTA = f"""
    WITH leased AS (
        SELECT id, CASE WHEN removed_at IS NOT NULL THEN 0 WHEN max_visits IS NULL THEN NULL
            ELSE least({MAX_QUOTA_LEASE}, (greatest(max_visits - visits_taken, 0) + 7) / 8) END AS visits
        FROM links WHERE slug = {_OF_LINK} FOR UPDATE
    ), debited AS (
        UPDATE links SET visits_taken = visits_taken + leased.visits FROM leased
        WHERE links.slug = {_OF_LINK} AND leased.visits > 0  -- no index has the ids of removed links
    )
    SELECT visits FROM leased
"""
QUOTA_LEFT = f"""
    SELECT CASE WHEN removed_at IS NOT NULL THEN 0 WHEN max_visits IS NULL THEN NULL
        ELSE greatest(max_visits - visits_taken, 0) END
    FROM links WHERE slug = {_OF_LINK}
"""
RETURN_QUOTA = f"""
    UPDATE links SET visits_taken = greatest(visits_taken - %(visits)s, 0)
    WHERE slug = {_OF_LINK} AND first_version <= %(version)s
"""
_KEY = (
    *("key_id", "name", "secret_hash", "scopes", "created_at", "revoked_at"),
    *("expires_at", "last_used_at", "old_secret_hash", "old_until"),
    *("own_links", "domains", "allowed_addresses", "rate_limit"),
)
_KEY_VALUES = ", ".join(f"%({name})s" for name in _KEY)
INSERT_KEY = f"INSERT INTO api_keys ({', '.join(_KEY)}) VALUES ({_KEY_VALUES}) ON CONFLICT DO NOTHING"
SELECT_KEY = f"SELECT {', '.join(_KEY)} FROM api_keys WHERE key_id = %(key_id)s"
SELECT_KEYS = f"SELECT {', '.join(_KEY)} FROM api_keys ORDER BY created_at, key_id"
REVOKE_KEY = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, %(now)s) WHERE key_id = %(key_id)s"
ROTATE_KEY = """
    UPDATE api_keys SET secret_hash = %(new)s, old_secret_hash = %(old)s, old_until = %(old_until)s
    WHERE key_id = %(key_id)s AND secret_hash = %(old)s AND revoked_at IS NULL
"""
# Always in the same order: two gateways cannot deadlock.
NOTE_KEY_USES = """
    WITH used AS MATERIALIZED (
        SELECT api_keys.key_id, asked.at FROM api_keys
        JOIN unnest(%(ids)s::text[], %(times)s::timestamptz[]) AS asked(key_id, at) USING (key_id)
        ORDER BY api_keys.key_id FOR UPDATE OF api_keys
    )
    UPDATE api_keys SET last_used_at = used.at FROM used
    WHERE api_keys.key_id = used.key_id AND (last_used_at IS NULL OR last_used_at < used.at)
"""
# The timeline, and the position of the log: flushed on a primary, replayed on a standby. The
# timeline of a standby is that of its last restart point, which lags behind a switch.
SELECT_WAL_POSITION = """
    SELECT standby,
        CASE WHEN standby THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::integer END,
        (CASE WHEN standby THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint
    FROM pg_is_in_recovery() AS standby
"""
# What migration 0005 wrote: another text would be another identity. Of a standby, nothing is compared.
_IDENTITY = """concat_ws(
    '/',
    (SELECT system_identifier FROM pg_control_system()),
    left(pg_walfile_name(pg_current_wal_flush_lsn()), 8),
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    'links'::regclass::oid
)"""
_POSITION = "(pg_current_wal_flush_lsn() - '0/0')::bigint"
SELECT_EPOCH = f"""
    SELECT epoch, CASE WHEN standby THEN true ELSE identity = {_IDENTITY} END,
        CASE WHEN standby THEN {2**63 - 1} ELSE {_POSITION} END
    FROM store_epoch, pg_is_in_recovery() AS standby
"""
# The time makes it another number than any that a lost history may have given.
RAISE_EPOCH = f"""
    UPDATE store_epoch SET identity = {_IDENTITY},
        epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    WHERE identity <> {_IDENTITY} OR (epoch = %(seen_epoch)s AND {_POSITION} < %(seen_position)s)
    RETURNING epoch, true, {_POSITION}
"""
SELECT_SCHEMA_VERSION = "SELECT max(version) FROM schema_migrations"

_encoder = msgspec.json.Encoder()


def link(row: Row) -> Link:
    """Return the link in the columns `LINK`; further columns are ignored."""
    rest = dict(zip(_AFTER_FIELDS, row[_END_OF_FIELDS:], strict=False))
    rest["aliases"] = tuple(rest["aliases"])
    return Link(slug=row[0], fields=fields_in(row[1:]), **rest)


def fields_in(row: Row) -> LinkFields:
    """Return the fields in the columns `FIELDS`; further columns are ignored."""
    fields = dict(zip(FIELDS, row, strict=False))
    for name, read in _READS.items():
        fields[name] = read(fields[name])
    return LinkFields(**fields)


def resolution(row: Row) -> Resolution:
    """Return the resolution in the columns of `RESOLVE`, which are its fields; see `Resolution.of`."""
    found = Resolution(*row)
    if found.long_url is not None:
        return found
    return Resolution(
        slug=found.slug,
        version=found.version,
        epoch=found.epoch,
        expired_url=found.expired_url,
        robots=found.robots,
    )


def field_values(fields: LinkFields) -> Parameters:
    """Return *fields* by the names of their columns."""
    values = {name: getattr(fields, name) for name in FIELDS}
    for name, write in _WRITES.items():
        values[name] = write(values[name])
    return values


def batch_json(links: Sequence[tuple[Link, int]]) -> str:
    """Return the new states of links, each with what version it replaces, as `WRITE_CHANGED` takes them."""
    return _encoder.encode(
        [
            {
                **_new_values(link),
                "removed_at": link.removed_at,
                "replaced": replaced,
                "owner": link.owner,
            }
            for link, replaced in links
        ]
    ).decode()


def reusable_json(asked: Sequence[Reusable]) -> str:
    """Return *asked* as `SELECT_REUSABLE` takes it."""
    found = []
    for number, one in enumerate(asked):
        first, end = keys_between(one.domain)
        bounds = {"first": first, "end": end, "later": AFTER_OTHERS if one.domain == DEFAULT_ID else None}
        found.append({"number": number, **bounds, "owner": one.owner, **field_values(one.fields)})
    return _encoder.encode(found).decode()


def links_json(links: Sequence[Link]) -> str:
    """Return new *links* as `INSERT_LINKS` takes them."""
    return _encoder.encode([_new_values(link) for link in links]).decode()


def added_values(links: Sequence[Link]) -> Parameters:
    """Return new *links*, at least one, as `WRITE_ADDED` takes them."""
    columns = {name: [getattr(link.fields, name) for link in links] for name in FIELDS}
    columns |= {name: [getattr(link, name) for link in links] for name in _NEW_OF_LINK}
    common = {name: values[0] for name, values in columns.items() if values.count(values[0]) == len(values)}
    common.pop("slug", None)  # of a single link: each has a member of its own
    names = [name for name in columns if name not in common]
    rows = zip(*(columns[name] for name in names), strict=True)
    return {
        "common": _encoder.encode(common).decode(),
        "links": _encoder.encode([dict(zip(names, row, strict=True)) for row in rows]).decode(),
    }


def imported_json(links: Sequence[tuple[Link, int]]) -> str:
    """Return new links and their spent visits as `INSERT_IMPORTED` takes them."""
    return _encoder.encode(
        [
            {**_new_values(link), "visits": link.visits, "visits_taken": spent, "owner": link.owner}
            for link, spent in links
        ]
    ).decode()


def _new_values(link: Link) -> Parameters:
    values = field_values(link.fields)
    for name in _NEW_OF_LINK:
        values[name] = getattr(link, name)
    return values


def counted_values(counted: ClicksCounted) -> Parameters:
    """Return *counted* as `ADD_CLICKS` takes it."""
    clicks = _encoder.encode(dict(counted.clicks)).decode()
    return {"batch": counted.batch, "hour": counted.hour, "clicks": clicks}


def event(
    event_id: int, slug: str, version: int, origin: str | None = None, committed_at: float | None = None
) -> OutboxEvent:
    """Return the outbox row as a value; it was written at *committed_at* (unix seconds)."""
    return OutboxEvent(event_id, LinkChanged(Slug(slug), version, committed_at, decode_origin(origin)))


def origins_json(origins: Mapping[Slug, Origin | None]) -> str:
    """Return the origins of new links as `INSERT_LINKS` takes them."""
    found = {slug: encode_origin(origin) for slug, origin in origins.items() if origin is not None}
    return _encoder.encode(found).decode()


def actors_json(actors: Mapping[Slug, str | None]) -> str:
    """Return who makes new links as `INSERT_LINKS` takes it."""
    return _encoder.encode({slug: one for slug, one in actors.items() if one is not None}).decode()


def key(row: Row) -> ApiKey:
    """Return the API key in the columns `_KEY`."""
    values = dict(zip(_KEY, row, strict=True))
    domains = values.pop("domains")
    return ApiKey(
        scopes=read_scopes(values.pop("scopes")),
        domains=None if domains is None else frozenset(domains),
        allowed_addresses=tuple(values.pop("allowed_addresses") or ()),
        **values,
    )


def key_values(key: ApiKey) -> Parameters:
    """Return *key* by the names of its columns."""
    return {name: getattr(key, name) for name in _KEY} | {
        "scopes": stored_scopes(key),
        "domains": None if key.domains is None else sorted(key.domains),
        "allowed_addresses": list(key.allowed_addresses),
    }
