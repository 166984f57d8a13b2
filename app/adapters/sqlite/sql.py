"""The statements of the SQLite store, and the conversions between rows and values."""

# Statements are built from column names only; values are always bound.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import apsw
import msgspec

from app.adapters.key_scopes import read_scopes, stored_scopes
from app.domain.events import LinkChanged
from app.domain.link import Link, LinkFields, Slug
from app.ports import IMPORT_SCOPE, MAX_QUOTA_LEASE, OUTBOX_GRACE_S, ApiKey, OutboxEvent
from app.wire import decode_origin

Row = tuple[Any, ...]
Bindings = Row | Mapping[str, Any]

# Made once: msgspec compiles the type.
_list_decoder = msgspec.json.Decoder(tuple[str, ...])
_encoder = msgspec.json.Encoder()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(time: datetime | None) -> int | None:
    """Return *time* as microseconds since 1970, exactly: a float would round."""
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def time(micros: int | None) -> datetime | None:
    """Return the time that is *micros* microseconds after 1970."""
    return None if micros is None else _EPOCH + micros * _MICROSECOND


def json(values: Iterable[str] | Iterable[int]) -> str:
    """Return *values* as a JSON array."""
    return _encoder.encode(list(values)).decode()


def listed(text: str) -> tuple[str, ...]:
    """Return the strings of the JSON array *text*."""
    return _list_decoder.decode(text)


def slugs(text: str) -> tuple[Slug, ...]:
    """Return the slugs in a JSON array."""
    return tuple(map(Slug, _list_decoder.decode(text)))


def json_object(values: Mapping[Slug, int]) -> str:
    """Return *values* as a JSON object."""
    return _encoder.encode(dict(values)).decode()


@dataclass(frozen=True, slots=True)
class _Column:
    """The conversions to a stored value and from it, if any."""

    write: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] | None = None


_SAME, _TIME, _FLAG = _Column(), _Column(micros, time), _Column(read=bool)
_LIST = _Column(json, _list_decoder.decode)
_SET = _Column(lambda values: json(sorted(values)), lambda text: frozenset(_list_decoder.decode(text)))
_IDS = _Column(
    lambda ids: None if ids is None else json(sorted(ids)),
    lambda text: None if text is None else frozenset(msgspec.json.decode(text)),
)
_ADDRESSES = _Column(json, lambda text: () if text is None else _list_decoder.decode(text))

# Each field of `LinkFields`, by its name. Statements and conversions below are derived from this.
FIELDS = {
    "long_url": _SAME,
    "title": _SAME,
    "tags": _LIST,
    "redirect_code": _SAME,
    "valid_from": _TIME,
    "expires_at": _TIME,
    "forward_query": _FLAG,
    "enabled": _FLAG,
    "max_visits": _SAME,
    "external_id": _SAME,
    "override_query": _FLAG,
    "expired_url": _SAME,
    "robots": _SAME,
    "analytics": _FLAG,
}
_LINK = {
    "slug": _SAME,
    **FIELDS,
    "version": _SAME,
    "created_at": _TIME,
    "updated_at": _TIME,
    "removed_at": _TIME,
    "visits": _SAME,
    "owner": _SAME,
    "aliases": _LIST,
    "alias_of": _SAME,
}
# Until a link is handed over its column is empty: the owner is the key that made it, in any release. Written
# out like the expression of the index.
OWNER = "nullif(coalesce(links.owner, nullif(links.created_by, 'cli')), '')"
_COMPUTED = {
    "visits": "coalesce((SELECT clicks FROM click_totals WHERE click_totals.slug = links.slug), 0)",
    "owner": OWNER,
}
SELECTED = ", ".join(_COMPUTED.get(name, f"links.{name}") for name in _LINK)
LINK_COLUMNS = len(_LINK)
# The database's clock, which all its users share, in microseconds. Its resolution is a millisecond.
_NOW = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
# Which version it belongs to, and who makes it: the trigger of link_history reads it.
CHANGED_BY = "changed_by = (version + 1) || ' ' || :actor"

INSERT_LINK = f"""
    INSERT INTO links (slug, {", ".join(FIELDS)}, version, created_at, updated_at, created_by)
    VALUES (:slug, {", ".join(f":{name}" for name in FIELDS)}, 1, :now, :now, :actor)
    ON CONFLICT DO NOTHING
"""
INSERT_IMPORTED = f"""
    INSERT INTO links (
        slug, {", ".join(FIELDS)}, version, created_at, updated_at, visits_taken, owner, created_by
    )
    VALUES (
        :slug, {", ".join(f":{name}" for name in FIELDS)}, 1, :created_at, :now, :spent_visits, :owner, :actor
    )
    ON CONFLICT DO NOTHING
"""
INSERT_TOTAL = """
    INSERT INTO click_totals (slug, clicks) VALUES (?, ?)
    ON CONFLICT (slug) DO UPDATE SET clicks = excluded.clicks
"""
UPDATE_LINK = f"""
    UPDATE links SET {", ".join(f"{name} = :{name}" for name in FIELDS)}, version = version + 1,
        updated_at = :now, {CHANGED_BY}, owner = coalesce(:owner, owner)
    WHERE slug = :slug
"""
REMOVE_LINK = f"""
    UPDATE links SET removed_at = :now, updated_at = :now, version = version + 1, {CHANGED_BY}
    WHERE slug = :slug
"""
TOUCH_LINK = "UPDATE links SET version = version + 1 WHERE slug = :slug"
# The slug of the link that a slug is of.
NAMED = "coalesce((SELECT alias_of FROM links WHERE slug = ?1), ?1)"
SELECT_LINK = f"SELECT {SELECTED} FROM links WHERE slug = {NAMED}"
# The rows as they are: that of an alias has the owner of its link.
_OF_ALIAS = (
    f"(SELECT {OWNER.replace('links.', 'named.')} FROM links AS named WHERE named.slug = links.alias_of)"
)
_LINK_OR_ALIAS = SELECTED.replace(
    OWNER, f"CASE WHEN links.alias_of IS NULL THEN {OWNER} ELSE {_OF_ALIAS} END"
)
SELECT_NAMED = f"SELECT {_LINK_OR_ALIAS} FROM links WHERE slug IN (SELECT value FROM json_each(?))"
# Each with the slug that was asked for.
SELECT_LINKS = f"""
    SELECT {SELECTED}, asked FROM (
        SELECT slug AS asked, coalesce(alias_of, slug) AS named
        FROM links WHERE slug IN (SELECT value FROM json_each(?))
    ) CROSS JOIN links ON links.slug = named
"""
# Likewise, also by the slugs that links had before.
SELECT_SERVED = SELECT_LINKS.replace("coalesce(alias_of, slug)", "coalesce(alias_of, was_of, slug)")
# Written out like the condition of the index.
SELECT_EXTERNAL = f"""
    SELECT {SELECTED} FROM links WHERE external_id IN (SELECT value FROM json_each(?))
        AND external_id IS NOT NULL AND removed_at IS NULL
"""
# The conditions are those of the index.
SELECT_REUSABLE = f"""
    SELECT {SELECTED} FROM links
    WHERE long_url = :long_url AND removed_at IS NULL AND enabled = 1 AND valid_from IS NULL
        AND expires_at IS NULL AND max_visits IS NULL AND external_id IS NULL
        AND expired_url IS NULL AND robots IS NULL
        AND title = :title AND tags = :tags AND redirect_code = :redirect_code
        AND forward_query = :forward_query AND override_query = :override_query
        AND analytics = :analytics
        AND (+slug >= :first AND +slug < :end OR +slug >= :later)
        AND (:owner IS NULL OR {OWNER} = :owner)
        AND NOT EXISTS (
            SELECT 1 FROM blocks
            WHERE kind = 'slug' AND value = substr(links.slug, length(:first) + 1) AND NOT removed
        )
    ORDER BY id LIMIT 1
"""
_WRITTEN = [name for name in _LINK if name not in {*_COMPUTED, "aliases", "alias_of"}]
# The new links of a batch are bound row by row to a table without triggers, and stored by one statement: each
# statement that runs triggers begins a journal of its own, and copies the pages that it changes to it.
STAGE = f"CREATE TEMP TABLE IF NOT EXISTS staged ({', '.join(_WRITTEN)})"
FILL_STAGE = f"INSERT INTO staged VALUES ({', '.join(f':{name}' for name in _WRITTEN)})"
WRITE_ADDED = f"""
    INSERT INTO links ({", ".join(_WRITTEN)}, created_by)
    SELECT {", ".join(_WRITTEN)}, ? FROM staged WHERE true ORDER BY rowid
    ON CONFLICT DO NOTHING
"""
CLEAR_STAGE = "DELETE FROM staged"
WRITE_CHANGED = f"""
    UPDATE links SET {", ".join(f"{name} = :{name}" for name in _WRITTEN if name != "slug")},
        changed_by = :version || ' ' || :actor, owner = coalesce(:owner, '')
    WHERE slug = :slug AND version = :replaced
"""
SELECT_PAGE = f"""
    SELECT {SELECTED}, id FROM links WHERE removed_at IS NULL AND id < ? ORDER BY id DESC LIMIT ?
"""
SELECT_SPENT = "SELECT slug, visits_taken FROM links WHERE slug IN (SELECT value FROM json_each(?))"
SELECT_EXPORT = f"""
    SELECT {SELECTED}, visits_taken, id FROM links WHERE removed_at IS NULL AND id > ? ORDER BY id LIMIT ?
"""
INSERT_EVENT = f"""
    INSERT INTO outbox (slug, version, origin, next_attempt_at, created_at)
    VALUES (?, ?, ?, {_NOW} + {round(OUTBOX_GRACE_S * 1_000_000)}, {_NOW}) RETURNING id
"""
# Those of `WRITE_ADDED`.
INSERT_EVENTS = INSERT_EVENT.replace("VALUES (?, ?, ?,", "SELECT slug, version, ?,").replace(
    ") RETURNING id", " FROM staged ORDER BY rowid RETURNING id"
)
TAKE_EVENTS = f"""
    UPDATE outbox SET next_attempt_at = {_NOW} + ?1, attempts = attempts + 1 WHERE id IN (
        SELECT id FROM outbox WHERE next_attempt_at <= {_NOW} OR next_attempt_at > {_NOW} + ?3
        ORDER BY next_attempt_at, id LIMIT ?2
    ) RETURNING id, slug, version, origin, created_at / 1e6
"""
DROP_EVENTS = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))"
# A row from the future is as old as the clock was set back, at least: it must not hide.
OUTBOX_DEPTH = f"""
    SELECT count(*), coalesce(max({_NOW} - min(created_at), max(created_at) - {_NOW}), 0), min(id)
    FROM outbox
"""
SELECT_ANSWER = "SELECT fingerprint, answer FROM idempotency WHERE scope = ? AND key = ?"
INSERT_ANSWER = """
    INSERT INTO idempotency (scope, key, fingerprint, slugs, created_at, answer) VALUES (?, ?, ?, ?, ?, ?)
"""
SELECT_REQUEST = "SELECT fingerprint, slugs FROM idempotency WHERE scope = ? AND key = ?"
INSERT_REQUEST = "INSERT INTO idempotency (scope, key, fingerprint, slugs, created_at) VALUES (?, ?, ?, ?, ?)"
SELECT_IMPORTED = f"""
    SELECT key, slugs ->> 0 FROM idempotency
    WHERE scope = '{IMPORT_SCOPE}' AND key IN (SELECT value FROM json_each(?))
"""
FORGET_REQUESTS = f"DELETE FROM idempotency WHERE created_at < ? AND scope <> '{IMPORT_SCOPE}' RETURNING 1"
INSERT_BATCH = "INSERT INTO click_batches (id, folded_at) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING 1"
# `WHERE true`: without it the parser reads ON as that of a join.
# Older clicks are those of the link that had the slug before.
_COUNTED = """
    SELECT coalesce(alias_of, was_of, key) AS slug, sum(value) AS clicks
    FROM json_each(?1) JOIN links ON links.slug = key
    WHERE first_version IS NULL OR first_version = 1 OR created_at < ?2 + 3600000000
    GROUP BY 1
"""
ADD_TO_TOTALS = f"""
    INSERT INTO click_totals (slug, clicks) SELECT slug, clicks FROM ({_COUNTED}) WHERE true
    ON CONFLICT (slug) DO UPDATE SET clicks = click_totals.clicks + excluded.clicks
"""
# After `ADD_TO_TOTALS`: a total of no more than what was added was nothing before.
NOTE_FIRST_VISITS = f"""
    INSERT INTO link_events (kind, slug, version, past, at)
    SELECT 'link.first_visit', links.slug, links.version,
        coalesce((SELECT max(id) FROM link_history WHERE link = links.id), 0), ?3
    FROM ({_COUNTED}) AS added
        JOIN click_totals AS total ON total.slug = added.slug AND total.clicks = added.clicks
        JOIN links ON links.slug = added.slug
"""
ADD_TO_HOURS = f"""
    INSERT INTO click_hours (slug, hour, clicks) SELECT slug, ?2, clicks FROM ({_COUNTED}) WHERE true
    ON CONFLICT (slug, hour) DO UPDATE SET clicks = click_hours.clicks + excluded.clicks
"""
SELECT_HOURS = "SELECT hour, clicks FROM click_hours WHERE slug = ? AND hour >= ? AND hour < ?"
FORGET_BATCHES = "DELETE FROM click_batches WHERE folded_at < ? RETURNING 1"
_OF_LINK = "coalesce((SELECT coalesce(alias_of, was_of) FROM links WHERE slug = ?1), ?1)"
QUOTA_LEFT = f"""
    SELECT CASE WHEN removed_at IS NOT NULL THEN 0 WHEN max_visits IS NULL THEN NULL
        ELSE max(max_visits - visits_taken, 0) END
    FROM links WHERE slug = {_OF_LINK}
"""
QUOTA_TO_LEASE = f"""
    SELECT CASE WHEN removed_at IS NOT NULL THEN 0 WHEN max_visits IS NULL THEN NULL
        ELSE min({MAX_QUOTA_LEASE}, (max(max_visits - visits_taken, 0) + 7) / 8) END
    FROM links WHERE slug = {_OF_LINK}
"""
TAKE_QUOTA = f"UPDATE links SET visits_taken = visits_taken + ?2 WHERE slug = {_OF_LINK}"
RETURN_QUOTA = f"""
    UPDATE links SET visits_taken = max(visits_taken - ?2, 0) WHERE slug = {_OF_LINK} AND first_version <= ?3
"""
_KEY = {
    "key_id": _SAME,
    "name": _SAME,
    "secret_hash": _SAME,
    "scopes": _SET,
    "created_at": _TIME,
    "revoked_at": _TIME,
    "expires_at": _TIME,
    "last_used_at": _TIME,
    "old_secret_hash": _SAME,
    "old_until": _TIME,
    "own_links": _FLAG,
    "domains": _IDS,
    "allowed_addresses": _ADDRESSES,
    "rate_limit": _SAME,
}
_KEY_VALUES = ", ".join(f":{name}" for name in _KEY)
INSERT_KEY = f"INSERT INTO api_keys ({', '.join(_KEY)}) VALUES ({_KEY_VALUES}) ON CONFLICT DO NOTHING"
SELECT_KEY = f"SELECT {', '.join(_KEY)} FROM api_keys WHERE key_id = ?"
SELECT_KEYS = f"SELECT {', '.join(_KEY)} FROM api_keys ORDER BY created_at, key_id"
REVOKE_KEY = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE key_id = ?1 RETURNING 1"

ROTATE_KEY = """
    UPDATE api_keys SET secret_hash = ?3, old_secret_hash = ?2, old_until = ?4
    WHERE key_id = ?1 AND secret_hash = ?2 AND revoked_at IS NULL RETURNING 1
"""
NOTE_KEY_USE = """
    UPDATE api_keys SET last_used_at = ?2 WHERE key_id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)
"""


def rows(db: apsw.Connection, statement: str, bindings: Bindings = ()) -> list[Row]:
    """Run *statement* to its end and return its rows."""
    return cast("list[Row]", db.execute(statement, bindings).fetchall())


def link(row: Row) -> Link:
    """Return the link in the columns `SELECTED`; further columns are ignored."""
    values = _read(_LINK, row)
    fields = {name: values.pop(name) for name in FIELDS}
    return Link(fields=LinkFields(**fields), **values)


def fields_in(row: Row) -> LinkFields:
    """Return the fields in the columns `FIELDS`; further columns are ignored."""
    return LinkFields(**_read(FIELDS, row))


def field_values(fields: LinkFields) -> dict[str, Any]:
    """Return *fields* by the names of their columns."""
    return _written(FIELDS, fields)


def link_values(link: Link) -> dict[str, Any]:
    """Return *link* by the names of its columns; what is counted aside is left out."""
    return {
        "slug": link.slug,
        **field_values(link.fields),
        "version": link.version,
        "created_at": micros(link.created_at),
        "updated_at": micros(link.updated_at),
        "removed_at": micros(link.removed_at),
        "owner": link.owner,
    }


def event(
    event_id: int, slug: str, version: int, origin: str | None = None, committed_at: float | None = None
) -> OutboxEvent:
    """Return the outbox row as a value; it was written at *committed_at* (unix seconds)."""
    return OutboxEvent(event_id, LinkChanged(Slug(slug), version, committed_at, decode_origin(origin)))


def key(row: Row) -> ApiKey:
    """Return the API key in the columns `_KEY`."""
    found = ApiKey(**_read(_KEY, row))
    return replace(found, scopes=read_scopes(found.scopes))


def key_values(key: ApiKey) -> dict[str, Any]:
    """Return *key* by the names of its columns."""
    return _written(_KEY, replace(key, scopes=frozenset(stored_scopes(key))))


def _read(columns: Mapping[str, _Column], row: Row) -> dict[str, Any]:
    values = dict(zip(columns, row, strict=False))
    for name, column in columns.items():
        if column.read is not None:
            values[name] = column.read(values[name])
    return values


def _written(columns: Mapping[str, _Column], values: object) -> dict[str, Any]:
    return {
        name: getattr(values, name) if column.write is None else column.write(getattr(values, name))
        for name, column in columns.items()
    }
