"""Blocks in the SQLite store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import apsw

from app.adapters.sqlite import sql
from app.domain.blocks import Block, BlockChange, BlockKind, StoredBlock
from app.ports import BlockPage

_ADD = """
    INSERT INTO blocks (kind, value, version, created_at)
    VALUES (:kind, :value, :version, :now)
    ON CONFLICT (kind, value) DO UPDATE
        SET version = excluded.version, created_at = excluded.created_at, removed = 0
        WHERE removed
"""
_REMOVE = """
    UPDATE blocks SET version = :version, removed = 1 WHERE kind = :kind AND value = :value AND NOT removed
"""
_PAGE = """
    SELECT kind, value, created_at, version FROM blocks
    WHERE NOT removed AND version < ? ORDER BY version DESC LIMIT ?
"""
_VERSION = "SELECT coalesce(max(version), 0) FROM blocks"
_SINCE = "SELECT kind, value, version, removed FROM blocks WHERE version > ? ORDER BY version LIMIT ?"


def add(db: apsw.Connection, blocks: Sequence[Block], now: datetime) -> list[Block]:
    """Store *blocks*, each once; return those that were not there."""
    return _change(db, _ADD, blocks, {"now": sql.micros(now)})


def remove(db: apsw.Connection, blocks: Sequence[Block]) -> list[Block]:
    """Remove *blocks*; return those that were there."""
    return _change(db, _REMOVE, blocks, {})


def page(db: apsw.Connection, before: int | None, limit: int) -> BlockPage:
    """As `BlockStore.block_page`."""
    rows = sql.rows(db, _PAGE, (2**63 - 1 if before is None else before, limit + 1))
    blocks = tuple(
        StoredBlock(Block(BlockKind(row[0]), row[1]), cast("datetime", sql.time(row[2])))
        for row in rows[:limit]
    )
    return BlockPage(blocks, rows[limit - 1][-1] if len(rows) > limit else None)


def version(db: apsw.Connection) -> int:
    """Return the version of the latest change."""
    [(latest,)] = sql.rows(db, _VERSION)
    return cast("int", latest)


def since(db: apsw.Connection, seen: int, limit: int) -> list[BlockChange]:
    """As `BlockStore.blocks_since`."""
    rows = sql.rows(db, _SINCE, (seen, limit))
    return [BlockChange(Block(BlockKind(row[0]), row[1]), row[2], bool(row[3])) for row in rows]


def _change(
    db: apsw.Connection, statement: str, blocks: Sequence[Block], more: dict[str, Any]
) -> list[Block]:
    latest = version(db)
    changed = []
    for block in dict.fromkeys(blocks):
        values = {"kind": str(block.kind), "value": block.value, "version": latest + 1, **more}
        db.execute(statement, values)
        if db.changes():
            latest += 1
            changed.append(block)
    return changed
