"""What the SQLite store says to its file, and how a row becomes a value and back."""

# Only names of columns are put together here; values are always bound.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import apsw
import msgspec

from app.domain.events import LinkChanged
from app.domain.link import Link, LinkFields, Slug
from app.ports import IMPORT_SCOPE, MAX_VISITS_A_LEASE, OUTBOX_GRACE_S, ApiKey, OutboxEvent

Row = tuple[Any, ...]

# Made once: msgspec compiles the type.
_tags_decoder = msgspec.json.Decoder(tuple[str, ...])
_encoder = msgspec.json.Encoder()

SCHEMA_VERSION = 3  # the migration that this SQL was written for

_FIELDS = "long_url, title, tags, redirect_code, valid_from, expires_at, forward_query, enabled, max_visits"
_LINK = f"""slug, {_FIELDS}, version, created_at, updated_at, removed_at,
    coalesce((SELECT clicks FROM click_totals WHERE click_totals.slug = links.slug), 0)"""
# The database's clock, which all its users share. Milliseconds are as fine as it gets.
_NOW = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"

INSERT_LINK = f"""
    INSERT INTO links (slug, {_FIELDS}, version, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?11)
    ON CONFLICT (slug) DO NOTHING
"""
UPDATE_LINK = """
    UPDATE links SET long_url = ?2, title = ?3, tags = ?4, redirect_code = ?5, valid_from = ?6,
        expires_at = ?7, forward_query = ?8, enabled = ?9, max_visits = ?10, version = version + 1,
        updated_at = ?11
    WHERE slug = ?1
"""
REMOVE_LINK = "UPDATE links SET removed_at = ?2, updated_at = ?2, version = version + 1 WHERE slug = ?1"
TOUCH_LINK = "UPDATE links SET version = version + 1 WHERE slug = ?"
SELECT_LINK = f"SELECT {_LINK} FROM links WHERE slug = ?"
SELECT_LINKS = f"SELECT {_LINK} FROM links WHERE slug IN (SELECT value FROM json_each(?))"
SELECT_PAGE = f"""
    SELECT {_LINK}, id FROM links WHERE removed_at IS NULL AND id < ? ORDER BY id DESC LIMIT ?
"""
INSERT_EVENT = f"""
    INSERT INTO outbox (slug, version, next_attempt_at, created_at)
    VALUES (?, ?, {_NOW} + {round(OUTBOX_GRACE_S * 1_000_000)}, {_NOW}) RETURNING id
"""
TAKE_EVENTS = f"""
    UPDATE outbox SET next_attempt_at = {_NOW} + ?1, attempts = attempts + 1 WHERE id IN (
        SELECT id FROM outbox WHERE next_attempt_at <= {_NOW} ORDER BY next_attempt_at, id LIMIT ?2
    ) RETURNING id, slug, version
"""
DROP_EVENTS = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))"
OUTBOX_DEPTH = f"SELECT count(*), coalesce({_NOW} - min(created_at), 0) FROM outbox"
SELECT_REQUEST = "SELECT fingerprint, slugs FROM idempotency WHERE scope = ? AND key = ?"
INSERT_REQUEST = "INSERT INTO idempotency (scope, key, fingerprint, slugs, created_at) VALUES (?, ?, ?, ?, ?)"
FORGET_REQUESTS = f"DELETE FROM idempotency WHERE created_at < ? AND scope <> '{IMPORT_SCOPE}' RETURNING 1"
INSERT_BATCH = "INSERT INTO click_batches (id, folded_at) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING 1"
# `WHERE true` keeps the parser from taking ON for that of a join.
ADD_TO_TOTALS = """
    INSERT INTO click_totals (slug, clicks) SELECT key, value FROM json_each(?1) WHERE true
    ON CONFLICT (slug) DO UPDATE SET clicks = click_totals.clicks + excluded.clicks
"""
ADD_TO_HOURS = """
    INSERT INTO click_hours (slug, hour, clicks) SELECT key, ?2, value FROM json_each(?1) WHERE true
    ON CONFLICT (slug, hour) DO UPDATE SET clicks = click_hours.clicks + excluded.clicks
"""
SELECT_HOURS = "SELECT hour, clicks FROM click_hours WHERE slug = ? AND hour >= ? AND hour < ?"
FORGET_BATCHES = "DELETE FROM click_batches WHERE folded_at < ? RETURNING 1"
VISITS_TO_LEASE = f"""
    SELECT CASE WHEN removed_at IS NOT NULL THEN 0 WHEN max_visits IS NULL THEN NULL
        ELSE min({MAX_VISITS_A_LEASE}, (max(max_visits - visits_taken, 0) + 7) / 8) END
    FROM links WHERE slug = ?
"""
TAKE_VISITS = "UPDATE links SET visits_taken = visits_taken + ?2 WHERE slug = ?1"
RETURN_VISITS = "UPDATE links SET visits_taken = max(visits_taken - ?2, 0) WHERE slug = ?1"
_KEY = "key_id, name, secret_hash, scopes, created_at, revoked_at"
INSERT_KEY = f"INSERT INTO api_keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?)"
SELECT_KEY = f"SELECT {_KEY} FROM api_keys WHERE key_id = ?"
SELECT_KEYS = f"SELECT {_KEY} FROM api_keys ORDER BY created_at, key_id"
REVOKE_KEY = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE key_id = ?1 RETURNING 1"


def rows(db: apsw.Connection, statement: str, bindings: Row = ()) -> list[Row]:
    """Run *statement* to its end and return its rows."""
    return cast("list[Row]", db.execute(statement, bindings).fetchall())


def link(row: Row) -> Link:
    """Return the link in the columns `_LINK`; what follows them is left alone."""
    slug, long_url, title, tags, code, start, end, forward_query, enabled, *rest = row
    max_visits, version, created_at, updated_at, removed_at, visits, *_ = rest
    fields = LinkFields(
        long_url=long_url,
        title=title,
        tags=_tags_decoder.decode(tags),
        redirect_code=code,
        valid_from=time(start),
        expires_at=time(end),
        forward_query=bool(forward_query),
        enabled=bool(enabled),
        max_visits=max_visits,
    )
    return Link(
        slug=slug,
        fields=fields,
        version=version,
        created_at=cast("datetime", time(created_at)),
        updated_at=cast("datetime", time(updated_at)),
        removed_at=time(removed_at),
        visits=visits,
    )


def field_values(fields: LinkFields) -> Row:
    """Return *fields* in the order of `_FIELDS`."""
    return (
        fields.long_url,
        fields.title,
        json(fields.tags),
        fields.redirect_code,
        micros(fields.valid_from),
        micros(fields.expires_at),
        fields.forward_query,
        fields.enabled,
        fields.max_visits,
    )


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
        scopes=frozenset(_tags_decoder.decode(scopes)),
        created_at=cast("datetime", time(created_at)),
        revoked_at=time(revoked_at),
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(time: datetime | None) -> int | None:
    """Return *time* as microseconds since 1970, exactly: no float comes near it."""
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def time(micros: int | None) -> datetime | None:
    """Return what `micros` was made of."""
    return None if micros is None else _EPOCH + micros * _MICROSECOND


def json(values: Iterable[str] | Iterable[int]) -> str:
    """Return *values* as a JSON array."""
    return _encoder.encode(list(values)).decode()


def json_object(values: Mapping[Slug, int]) -> str:
    """Return *values* as a JSON object."""
    return _encoder.encode(dict(values)).decode()
