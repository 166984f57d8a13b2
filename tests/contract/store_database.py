"""An empty, migrated database of either kind, with direct access that bypasses the store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

import apsw
import psycopg

from app.adapters.guarded import guarded_store
from app.adapters.postgres.store import PostgresStore
from app.adapters.sqlite.store import SqliteStore
from app.ports import Store
from tests.contract.guards import wide_store_guards
from tests.servers.postgres import PrivatePostgres

# Arrays of JSON that no release writes: half a character, no text, and as deep as SQLite reads.
ODD_TAGS = ("'[\"\\ud83d\"]'", "'[null]'", "'[[\"a\"]]'", "'" + "[" * 999 + "]" * 999 + "'")


class Database(Protocol):
    async def open(self) -> Store: ...

    def execute(self, statement: str) -> list[tuple[Any, ...]]: ...

    def make_events_due(self) -> None: ...

    def forget_schema(self) -> None: ...


class SqliteDatabase:
    def __init__(self, template: Path, directory: Path) -> None:
        self.path = directory / "links.db"
        shutil.copy(template, self.path)

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(self.path)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        db = apsw.Connection(str(self.path))
        try:
            return db.execute(statement).fetchall()
        finally:
            db.close()

    def make_events_due(self) -> None:
        self.execute("UPDATE outbox SET next_attempt_at = 0")

    def forget_schema(self) -> None:
        self.execute("PRAGMA user_version = 0")


class PostgresDatabase:
    def __init__(self, server: PrivatePostgres) -> None:
        self.url = server.create_database()

    async def open(self) -> Store:
        # The suite makes far more calls at once than a gateway behind its bulkheads.
        return await PostgresStore.open(self.url, max_waiting=500, wait_timeout_s=20)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def make_events_due(self) -> None:
        self.execute("UPDATE outbox SET next_attempt_at = now() - interval '1 s'")

    def forget_schema(self) -> None:
        self.execute("DELETE FROM schema_migrations")


class GuardedPostgresDatabase(PostgresDatabase):
    async def open(self) -> Store:
        return guarded_store(await super().open(), wide_store_guards())
