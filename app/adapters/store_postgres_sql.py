"""What the PostgreSQL store says to its server, and how a row becomes a value and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from app.domain.events import ClicksCounted, LinkChanged
from app.domain.link import Link, LinkFields, Resolution, Slug
from app.ports import IMPORT_SCOPE, MAX_VISITS_A_LEASE, OUTBOX_GRACE_S, ApiKey, OutboxEvent

Row = tuple[Any, ...]
Parameters = dict[str, Any]

SCHEMA_VERSION = 3  # the migration that this SQL was written for

_COLUMNS = (
    "slug, long_url, title, tags, redirect_code, valid_from, expires_at, forward_query, enabled,"
    " max_visits, version, created_at, updated_at, removed_at"
)
_LINK = f"""{_COLUMNS},
    coalesce((SELECT clicks FROM click_totals WHERE click_totals.slug = links.slug), 0) AS visits"""
_FIRST_ATTEMPT_AT = f"now() + make_interval(secs => {OUTBOX_GRACE_S})"

# One statement for any number of links. The ids are drawn in the order asked for, so that
# listings keep it; the rows are inserted in the order of their slugs, so that two calls
# that want the same slugs wait for each other instead of deadlocking.
INSERT_LINKS = f"""
    WITH asked AS MATERIALIZED (
        SELECT nextval('links_id_seq') AS id, a.* FROM json_to_recordset(%(links)s::json) AS a(
            slug text, long_url text, title text, tags text[], redirect_code smallint,
            valid_from timestamptz, expires_at timestamptz, forward_query boolean, enabled boolean,
            max_visits bigint, version bigint, created_at timestamptz, updated_at timestamptz)
    ), stored AS (
        INSERT INTO links (id, {_COLUMNS})
        SELECT asked.*, NULL FROM asked ORDER BY slug COLLATE "C", id
        ON CONFLICT (slug) DO NOTHING RETURNING slug
    )
    INSERT INTO outbox (slug, version, next_attempt_at)
    SELECT slug, 1, {_FIRST_ATTEMPT_AT} FROM stored RETURNING id, slug, version
"""


def _changing(update: str) -> str:
    """Return a statement that does *update* and yields each link with its new event's id."""
    return f"""
        WITH changed AS ({update} RETURNING {_LINK}), noted AS (
            INSERT INTO outbox (slug, version, next_attempt_at)
            SELECT slug, version, {_FIRST_ATTEMPT_AT} FROM changed RETURNING id, slug
        )
        SELECT changed.*, noted.id FROM changed JOIN noted USING (slug)
    """


UPDATE_LINK = _changing("""
    UPDATE links SET long_url = %(long_url)s, title = %(title)s, tags = %(tags)s::text[],
        redirect_code = %(redirect_code)s, valid_from = %(valid_from)s, expires_at = %(expires_at)s,
        forward_query = %(forward_query)s, enabled = %(enabled)s, max_visits = %(max_visits)s,
        version = version + 1, updated_at = %(now)s
    WHERE slug = %(slug)s
""")
REMOVE_LINK = _changing("""
    UPDATE links SET removed_at = %(now)s, updated_at = %(now)s, version = version + 1
    WHERE slug = %(slug)s
""")
TOUCH_LINKS = _changing("UPDATE links SET version = version + 1 WHERE slug = ANY(%(slugs)s)")
# Always in the same order, or two calls could wait for each other.
LOCK_LINKS = 'SELECT 1 FROM links WHERE slug = ANY(%(slugs)s) ORDER BY slug COLLATE "C" FOR UPDATE'
LOCK_LINK = f"SELECT {_LINK} FROM links WHERE slug = %(slug)s FOR UPDATE"
SELECT_LINK = f"SELECT {_LINK} FROM links WHERE slug = %(slug)s"
SELECT_LINKS = f"SELECT {_LINK} FROM links WHERE slug = ANY(%(slugs)s)"
# What cannot be visited has no target.
RESOLVE = """
    SELECT slug, version, CASE WHEN enabled AND removed_at IS NULL THEN long_url END, redirect_code,
        forward_query, valid_from, expires_at, max_visits IS NOT NULL
    FROM links WHERE slug = ANY(%(slugs)s)
"""
SELECT_PAGE = f"""
    SELECT {_LINK}, id FROM links WHERE removed_at IS NULL AND id < %(before)s
    ORDER BY id DESC LIMIT %(limit)s
"""
# SKIP LOCKED: whoever asks at the same time takes other rows instead of waiting.
TAKE_EVENTS = """
    WITH due AS (
        SELECT id FROM outbox WHERE next_attempt_at <= now()
        ORDER BY next_attempt_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE outbox SET next_attempt_at = now() + make_interval(secs => %(lease_s)s), attempts = attempts + 1
    FROM due WHERE outbox.id = due.id RETURNING outbox.id, slug, version
"""
DROP_EVENTS = "DELETE FROM outbox WHERE id = ANY(%(ids)s::bigint[])"
OUTBOX_DEPTH = """
    SELECT count(*), coalesce(greatest(extract(epoch FROM now() - min(created_at)), 0), 0)::float8 FROM outbox
"""
# Waits for whoever is storing the same request right now.
INSERT_REQUEST = """
    INSERT INTO idempotency (scope, key, fingerprint, slugs, created_at)
    VALUES (%(scope)s, %(key)s, %(fingerprint)s, %(slugs)s, %(now)s) ON CONFLICT (scope, key) DO NOTHING
"""
SELECT_REQUEST = "SELECT fingerprint, slugs FROM idempotency WHERE scope = %(scope)s AND key = %(key)s"
FORGET_REQUESTS = f"DELETE FROM idempotency WHERE created_at < %(before)s AND scope <> '{IMPORT_SCOPE}'"
# One statement, so one transaction: a batch that is known already gives no rows to add. They
# are added in the order of their slugs, so that two batches wait for each other instead of
# deadlocking.
FOLD_CLICKS = """
    WITH batch AS (
        INSERT INTO click_batches (id, folded_at) VALUES (%(batch)s, %(now)s)
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), counted AS MATERIALIZED (
        SELECT key AS slug, value::bigint AS clicks FROM batch, json_each_text(%(clicks)s::json)
        ORDER BY key COLLATE "C"
    ), total AS (
        INSERT INTO click_totals (slug, clicks) SELECT slug, clicks FROM counted
        ON CONFLICT (slug) DO UPDATE SET clicks = click_totals.clicks + excluded.clicks
    ), hourly AS (
        INSERT INTO click_hours (slug, hour, clicks) SELECT slug, %(hour)s, clicks FROM counted
        ON CONFLICT (slug, hour) DO UPDATE SET clicks = click_hours.clicks + excluded.clicks
    )
    SELECT id FROM batch
"""
SELECT_HOURS = """
    SELECT hour, clicks FROM click_hours WHERE slug = %(slug)s AND hour >= %(since)s AND hour < %(until)s
"""
FORGET_BATCHES = "DELETE FROM click_batches WHERE folded_at < %(before)s"
# Whoever asks at the same time waits for the row, and then sees what is left.
LEASE_VISITS = f"""
    WITH leased AS (
        SELECT id, CASE WHEN removed_at IS NOT NULL THEN 0 WHEN max_visits IS NULL THEN NULL
            ELSE least({MAX_VISITS_A_LEASE}, (greatest(max_visits - visits_taken, 0) + 7) / 8) END AS visits
        FROM links WHERE slug = %(slug)s FOR UPDATE
    ), debited AS (
        UPDATE links SET visits_taken = visits_taken + leased.visits FROM leased
        WHERE links.slug = %(slug)s AND leased.visits > 0  -- no index has the ids of removed links
    )
    SELECT visits FROM leased
"""
RETURN_VISITS = """
    UPDATE links SET visits_taken = greatest(visits_taken - %(visits)s, 0) WHERE slug = %(slug)s
"""
_KEY = "key_id, name, secret_hash, scopes, created_at, revoked_at"
INSERT_KEY = f"""
    INSERT INTO api_keys ({_KEY}) VALUES (
        %(key_id)s, %(name)s, %(secret_hash)s, %(scopes)s, %(created_at)s, %(revoked_at)s)
"""
SELECT_KEY = f"SELECT {_KEY} FROM api_keys WHERE key_id = %(key_id)s"
SELECT_KEYS = f"SELECT {_KEY} FROM api_keys ORDER BY created_at, key_id"
REVOKE_KEY = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, %(now)s) WHERE key_id = %(key_id)s"
# Its timeline, and how far the log is on the disk of a primary or replayed by a standby. What a
# standby says of the timeline is from its last restart point: right, if it was not just switched.
SELECT_WAL_POSITION = """
    SELECT standby,
        CASE WHEN standby THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::integer END,
        (CASE WHEN standby THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint
    FROM pg_is_in_recovery() AS standby
"""
SELECT_SCHEMA_VERSION = "SELECT max(version) FROM schema_migrations"

_encoder = msgspec.json.Encoder()


def link(row: Row) -> Link:
    """Return the link in the columns `_LINK`; what follows them is left alone."""
    slug, long_url, title, tags, code, start, end, forward_query, enabled, *rest = row
    max_visits, version, created_at, updated_at, removed_at, visits, *_ = rest
    fields = LinkFields(
        long_url=long_url,
        title=title,
        tags=tuple(tags),
        redirect_code=code,
        valid_from=start,
        expires_at=end,
        forward_query=forward_query,
        enabled=enabled,
        max_visits=max_visits,
    )
    return Link(
        slug=slug,
        fields=fields,
        version=version,
        created_at=created_at,
        updated_at=updated_at,
        removed_at=removed_at,
        visits=visits,
    )


def resolution(row: Row) -> Resolution:
    """Return what redirects need of a link in the columns of `RESOLVE`; see `Resolution.of`."""
    slug, version, long_url, code, forward_query, start, end, metered = row
    if long_url is None:
        return Resolution(slug, version)
    return Resolution(
        slug,
        version,
        long_url,
        code,
        forward_query,
        start.timestamp() if start is not None else None,
        end.timestamp() if end is not None else None,
        metered,
    )


def field_values(fields: LinkFields) -> Parameters:
    """Return *fields* by the names of their columns."""
    return {
        "long_url": fields.long_url,
        "title": fields.title,
        "tags": list(fields.tags),
        "redirect_code": fields.redirect_code,
        "valid_from": fields.valid_from,
        "expires_at": fields.expires_at,
        "forward_query": fields.forward_query,
        "enabled": fields.enabled,
        "max_visits": fields.max_visits,
    }


def links_json(links: Sequence[Link]) -> str:
    """Return new *links* as `INSERT_LINKS` takes them."""
    return _encoder.encode([_link_values(link) for link in links]).decode()


def _link_values(link: Link) -> Parameters:
    times = {"created_at": link.created_at, "updated_at": link.updated_at}
    return {"slug": link.slug, "version": link.version, **field_values(link.fields), **times}


def counted_values(counted: ClicksCounted) -> Parameters:
    """Return *counted* as `FOLD_CLICKS` takes it."""
    clicks = _encoder.encode(dict(counted.clicks)).decode()
    return {"batch": counted.batch, "hour": counted.hour, "clicks": clicks}


def event(event_id: int, slug: str, version: int) -> OutboxEvent:
    """Return the outbox row as a value."""
    return OutboxEvent(event_id, LinkChanged(Slug(slug), version))


def key(row: Row) -> ApiKey:
    """Return the API key in the columns `_KEY`."""
    key_id, name, secret_hash, scopes, created_at, revoked_at = row
    return ApiKey(
        key_id=key_id,
        name=name,
        secret_hash=secret_hash,
        scopes=frozenset(scopes),
        created_at=created_at,
        revoked_at=revoked_at,
    )


def key_values(key: ApiKey) -> Parameters:
    """Return *key* by the names of its columns."""
    times: dict[str, datetime | None] = {"created_at": key.created_at, "revoked_at": key.revoked_at}
    names = {"key_id": key.key_id, "name": key.name, "scopes": sorted(key.scopes)}
    return {**names, "secret_hash": key.secret_hash, **times}
