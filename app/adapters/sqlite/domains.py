"""Domains in the SQLite store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import apsw

from app.adapters.sqlite import sql
from app.domain.domains import Domain, DomainSettings, Robots

_SETTINGS = [field.name for field in fields(DomainSettings)]
_COLUMNS = ", ".join(
    [
        "id, host, case_sensitive, has_segments, has_unicode, created_at, updated_at, removed, version",
        *_SETTINGS,
    ]
)
_NEXT = "(SELECT max(version) + 1 FROM domains)"
# Links stay when a rule for new ones ends.
_SET = ", ".join(
    [
        *(f"{name} = :{name}" for name in _SETTINGS),
        "has_segments = has_segments OR :multi_segment",
        "has_unicode = has_unicode OR :unicode",
    ]
)

SELECT_VERSION = "SELECT max(version) FROM domains"
SELECT_ALL = f"SELECT {_COLUMNS} FROM domains ORDER BY id"
_ADD = f"""
    INSERT INTO domains (
        host, case_sensitive, has_segments, has_unicode, {", ".join(_SETTINGS)},
        version, created_at, updated_at
    ) VALUES (
        :host, :case_sensitive, :multi_segment, :unicode, {", ".join(f":{name}" for name in _SETTINGS)},
        {_NEXT}, :now, :now
    )
    ON CONFLICT (host) DO UPDATE
        SET {_SET}, version = excluded.version, updated_at = excluded.updated_at, removed = 0 WHERE removed
    RETURNING {_COLUMNS}
"""
_CHANGE = f"""
    UPDATE domains SET {_SET}, version = {_NEXT}, updated_at = :now
    WHERE id = :id AND version = :expected AND NOT removed RETURNING {_COLUMNS}
"""
_REMOVE = f"""
    UPDATE domains SET removed = 1, version = {_NEXT}, updated_at = :now
    WHERE id = :id AND id > 0 AND NOT removed RETURNING id
"""


def version(db: apsw.Connection) -> int:
    """Return the version of the latest change."""
    [(latest,)] = sql.rows(db, SELECT_VERSION)
    return int(latest)


def every(db: apsw.Connection) -> list[Domain]:
    """As `DomainStore.domains`."""
    return [_domain(row) for row in sql.rows(db, SELECT_ALL)]


def add(
    db: apsw.Connection, host: str, settings: DomainSettings, *, case_sensitive: bool, now: datetime
) -> Domain | None:
    """As `DomainStore.add_domain`."""
    return _one(db, _ADD, {"host": host, "case_sensitive": case_sensitive, **_values(settings, now)})


def change(
    db: apsw.Connection, domain_id: int, settings: DomainSettings, *, expected: int, now: datetime
) -> Domain | None:
    """As `DomainStore.change_domain`."""
    return _one(db, _CHANGE, {"id": domain_id, "expected": expected, **_values(settings, now)})


def remove(db: apsw.Connection, domain_id: int, *, now: datetime) -> bool:
    """As `DomainStore.remove_domain`."""
    return bool(sql.rows(db, _REMOVE, {"id": domain_id, "now": sql.micros(now)}))


def _values(settings: DomainSettings, now: datetime) -> dict[str, Any]:
    return {"now": sql.micros(now), **{name: getattr(settings, name) for name in _SETTINGS}}


def _one(db: apsw.Connection, statement: str, values: Mapping[str, Any]) -> Domain | None:
    rows = sql.rows(db, statement, values)
    return _domain(rows[0]) if rows else None


def _domain(row: Sequence[Any]) -> Domain:
    (
        domain_id,
        host,
        case_sensitive,
        has_segments,
        has_unicode,
        created_at,
        updated_at,
        removed,
        version,
        *settings,
    ) = row
    values = dict(zip(_SETTINGS, settings, strict=True))
    flags = {name: bool(values[name]) for name in ("multi_segment", "unicode")}
    typed = {**flags, "robots": Robots(values["robots"])}
    return Domain(
        domain_id=domain_id,
        host=host,
        case_sensitive=bool(case_sensitive),
        has_segments=bool(has_segments),
        has_unicode=bool(has_unicode),
        settings=DomainSettings(**{**values, **typed}),
        version=version,
        created_at=sql.time(created_at),
        updated_at=sql.time(updated_at),
        removed=bool(removed),
    )
