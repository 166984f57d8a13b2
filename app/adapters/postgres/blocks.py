"""Blocks in the PostgreSQL store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.adapters.postgres import sql
from app.adapters.postgres.pool import Connection, rows_of
from app.domain.blocks import Block, BlockChange, BlockKind, StoredBlock
from app.ports import BlockPage

# One change at a time, so that versions have the order of commits; readers do not wait.
_LOCK = b"LOCK TABLE blocks IN SHARE ROW EXCLUSIVE MODE"
_ASKED = """
    WITH last AS (SELECT coalesce(max(version), 0) AS version FROM blocks),
    asked AS (
        SELECT kind, value, last.version + n AS version
        FROM last, unnest(%(kinds)s::text[], %(values)s::text[]) WITH ORDINALITY AS one (kind, value, n)
    )
"""
_ADD = f"""{_ASKED}
    INSERT INTO blocks (kind, value, version, created_at)
    SELECT kind, value, version, %(now)s FROM asked
    ON CONFLICT (kind, value) DO UPDATE
        SET version = excluded.version, created_at = excluded.created_at, removed = false
        WHERE blocks.removed
    RETURNING kind, value
"""
_REMOVE = f"""{_ASKED}
    UPDATE blocks SET version = asked.version, removed = true FROM asked
    WHERE blocks.kind = asked.kind AND blocks.value = asked.value AND NOT removed
    RETURNING blocks.kind, blocks.value
"""
SELECT_PAGE = """
    SELECT kind, value, created_at, version FROM blocks
    WHERE NOT removed AND version < %(before)s ORDER BY version DESC LIMIT %(limit)s
"""
SELECT_VERSION = "SELECT coalesce(max(version), 0) FROM blocks"
SELECT_SINCE = """
    SELECT kind, value, version, removed FROM blocks
    WHERE version > %(version)s ORDER BY version LIMIT %(limit)s
"""


async def add(connection: Connection, blocks: Sequence[Block], now: datetime) -> list[Block]:
    """Store *blocks*, each once; return those that were not there."""
    return await _change(connection, _ADD, blocks, {"now": now})


async def remove(connection: Connection, blocks: Sequence[Block]) -> list[Block]:
    """Remove *blocks*; return those that were there."""
    return await _change(connection, _REMOVE, blocks, {})


def page(rows: Sequence[sql.Row], limit: int) -> BlockPage:
    """Return the page of *rows*, of which there is one more than *limit* if it is not the last."""
    blocks = tuple(StoredBlock(Block(BlockKind(row[0]), row[1]), row[2]) for row in rows[:limit])
    return BlockPage(blocks, rows[limit - 1][-1] if len(rows) > limit else None)


def changes(rows: Sequence[sql.Row]) -> list[BlockChange]:
    """Return *rows* as changes."""
    return [BlockChange(Block(BlockKind(row[0]), row[1]), row[2], row[3]) for row in rows]


async def _change(
    connection: Connection, statement: str, blocks: Sequence[Block], more: sql.Parameters
) -> list[Block]:
    asked = {(str(block.kind), block.value): block for block in blocks}
    parameters = {"kinds": [kind for kind, _ in asked], "values": [value for _, value in asked], **more}
    async with connection.transaction():
        await connection.execute(_LOCK)
        changed = {(row[0], row[1]) for row in await rows_of(connection, statement, parameters)}
    return [block for key, block in asked.items() if key in changed]
