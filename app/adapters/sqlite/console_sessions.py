"""Sessions of the console in the SQLite store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

import apsw

from app.adapters.sqlite import sql
from app.ports import ConsoleSession

_COLUMNS = "id_hash, key_id, secret_hash, created_at, expires_at"
_INSERT = f"INSERT INTO console_sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
_TRIM = """
    DELETE FROM console_sessions WHERE id_hash IN (
        SELECT id_hash FROM console_sessions WHERE key_id = ?1 AND id_hash <> ?2
        ORDER BY created_at DESC, id_hash LIMIT -1 OFFSET ?3
    )
"""
_SELECT_ALL = f"SELECT {_COLUMNS} FROM console_sessions"
_SELECT = f"{_SELECT_ALL} WHERE id_hash = ?"
_END = "DELETE FROM console_sessions WHERE id_hash = ? RETURNING 1"
_FORGET = """
    DELETE FROM console_sessions WHERE id_hash IN (
        SELECT id_hash FROM console_sessions WHERE expires_at < ? LIMIT ?
    ) RETURNING 1
"""


def add(db: apsw.Connection, session: ConsoleSession, keep: int) -> None:
    """As `ConsoleSessionStore.add_session`."""
    times = sql.micros(session.created_at), sql.micros(session.expires_at)
    db.execute(_INSERT, (session.id_hash, session.key_id, session.secret_hash, *times))
    db.execute(_TRIM, (session.key_id, session.id_hash, keep - 1))


def get(db: apsw.Connection, id_hash: bytes) -> ConsoleSession | None:
    """As `ConsoleSessionStore.get_session`."""
    rows = sql.rows(db, _SELECT, (id_hash,))
    return _session(rows[0]) if rows else None


def every(db: apsw.Connection) -> Sequence[ConsoleSession]:
    """As `ConsoleSessionStore.list_sessions`."""
    return [_session(row) for row in sql.rows(db, _SELECT_ALL)]


def end(db: apsw.Connection, id_hash: bytes) -> bool:
    """As `ConsoleSessionStore.end_session`."""
    return bool(sql.rows(db, _END, (id_hash,)))


def forget(db: apsw.Connection, before: datetime, limit: int) -> int:
    """As `ConsoleSessionStore.forget_sessions`."""
    return len(sql.rows(db, _FORGET, (sql.micros(before), limit)))


def _session(row: sql.Row) -> ConsoleSession:
    *values, created_at, expires_at = row
    times = cast("datetime", sql.time(created_at)), cast("datetime", sql.time(expires_at))
    return ConsoleSession(
        id_hash=values[0],
        key_id=values[1],
        secret_hash=values[2],
        created_at=times[0],
        expires_at=times[1],
    )
