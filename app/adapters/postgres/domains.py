"""Domains in the PostgreSQL store."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime

from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, rows_of
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
        *(f"{name} = %({name})s" for name in _SETTINGS),
        "has_segments = domains.has_segments OR %(multi_segment)s",
        "has_unicode = domains.has_unicode OR %(unicode)s",
    ]
)

# One change at a time, so that versions have the order of commits; readers do not wait.
_LOCK = b"LOCK TABLE domains IN SHARE ROW EXCLUSIVE MODE"
SELECT_VERSION = "SELECT max(version) FROM domains"
SELECT_ALL = f"SELECT {_COLUMNS} FROM domains ORDER BY id"
_ADD = f"""
    INSERT INTO domains (
        host, case_sensitive, has_segments, has_unicode, {", ".join(_SETTINGS)},
        version, created_at, updated_at
    ) VALUES (
        %(host)s, %(case_sensitive)s, %(multi_segment)s, %(unicode)s,
        {", ".join(f"%({name})s" for name in _SETTINGS)},
        {_NEXT}, %(now)s, %(now)s
    )
    ON CONFLICT (host) DO UPDATE
        SET {_SET}, version = excluded.version, updated_at = excluded.updated_at, removed = false
        WHERE domains.removed
    RETURNING {_COLUMNS}
"""
_CHANGE = f"""
    UPDATE domains SET {_SET}, version = {_NEXT}, updated_at = %(now)s
    WHERE id = %(id)s AND version = %(expected)s AND NOT removed RETURNING {_COLUMNS}
"""
_REMOVE = f"""
    UPDATE domains SET removed = true, version = {_NEXT}, updated_at = %(now)s
    WHERE id = %(id)s AND id > 0 AND NOT removed RETURNING {_COLUMNS}
"""


async def add(
    connection: Connection, host: str, settings: DomainSettings, *, case_sensitive: bool, now: datetime
) -> Domain | None:
    """As `DomainStore.add_domain`."""
    values = {"host": host, "case_sensitive": case_sensitive, **_values(settings, now)}
    return await _changed(connection, _ADD, values)


async def change(
    connection: Connection, domain_id: int, settings: DomainSettings, *, expected: int, now: datetime
) -> Domain | None:
    """As `DomainStore.change_domain`."""
    values = {"id": domain_id, "expected": expected, **_values(settings, now)}
    return await _changed(connection, _CHANGE, values)


async def remove(connection: Connection, domain_id: int, *, now: datetime) -> bool:
    """As `DomainStore.remove_domain`."""
    return await _changed(connection, _REMOVE, {"id": domain_id, "now": now}) is not None


def domain(row: sql.Row) -> Domain:
    """Return *row* as a domain."""
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
    return Domain(
        domain_id=domain_id,
        host=host,
        case_sensitive=case_sensitive,
        has_segments=has_segments,
        has_unicode=has_unicode,
        settings=DomainSettings(**{**values, "robots": Robots(values["robots"])}),
        version=version,
        created_at=created_at,
        updated_at=updated_at,
        removed=removed,
    )


def _values(settings: DomainSettings, now: datetime) -> sql.Parameters:
    return {"now": now, **{name: getattr(settings, name) for name in _SETTINGS}}


async def _changed(connection: Connection, statement: str, values: sql.Parameters) -> Domain | None:
    async with connection.transaction():
        await connection.execute(_LOCK)
        rows = await rows_of(connection, statement, values)
    return domain(rows[0]) if rows else None
