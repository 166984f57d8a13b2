"""Sessions of the console in the PostgreSQL store."""

from __future__ import annotations

from app.adapters.postgres.pool import Connection
from app.ports import ConsoleSession

_COLUMNS = "id_hash, key_id, secret_hash, created_at, expires_at"
# One sign-in of a key at a time: of two at once, neither would see the other's row.
_LOCK_KEY = b"SELECT 1 FROM api_keys WHERE key_id = %(key_id)s FOR NO KEY UPDATE"
_INSERT = f"""
    INSERT INTO console_sessions ({_COLUMNS})
    VALUES (%(id_hash)s, %(key_id)s, %(secret_hash)s, %(created_at)s, %(expires_at)s)
""".encode()
_TRIM = b"""
    DELETE FROM console_sessions WHERE id_hash = ANY(ARRAY(
        SELECT id_hash FROM console_sessions WHERE key_id = %(key_id)s AND id_hash <> %(id_hash)s
        ORDER BY created_at DESC, id_hash OFFSET %(others)s FOR UPDATE SKIP LOCKED
    ))
"""
SELECT = f"SELECT {_COLUMNS} FROM console_sessions WHERE id_hash = %(id_hash)s"
SELECT_ALL = f"SELECT {_COLUMNS} FROM console_sessions"
END = "DELETE FROM console_sessions WHERE id_hash = %(id_hash)s"
FORGET = """
    DELETE FROM console_sessions WHERE id_hash = ANY(ARRAY(
        SELECT id_hash FROM console_sessions WHERE expires_at < %(before)s
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
"""


async def add(connection: Connection, session: ConsoleSession, keep: int) -> None:
    """As `ConsoleSessionStore.add_session`."""
    values = {
        "id_hash": session.id_hash,
        "key_id": session.key_id,
        "secret_hash": session.secret_hash,
        "created_at": session.created_at,
        "expires_at": session.expires_at,
    }
    async with connection.transaction():
        await connection.execute(_LOCK_KEY, values)
        await connection.execute(_INSERT, values)
        await connection.execute(_TRIM, {**values, "others": keep - 1})


def session(row: tuple[object, ...]) -> ConsoleSession:
    """Return the session in the columns of `SELECT`."""
    names = ("id_hash", "key_id", "secret_hash", "created_at", "expires_at")
    values = dict(zip(names, row, strict=True))
    return ConsoleSession(**values)  # type: ignore[arg-type]
