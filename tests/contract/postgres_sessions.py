"""What the sessions of a PostgreSQL server do, seen and changed past the store."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def wait_for_a_waiting_backend(url: str) -> None:
    async with asyncio.timeout(5):
        while not execute(
            url,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
        ):
            await asyncio.sleep(0.005)
