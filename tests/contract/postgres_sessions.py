"""Stores with their connections made, and direct access to the sessions of a PostgreSQL server."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from app.adapters.postgres.pool import Connection, Connections
from app.adapters.postgres.store import PostgresStore
from app.domain.errors import Unavailable


async def open_connected(url: str, **settings: Any) -> PostgresStore:
    """Open a store with a connection in each pool: on a busy machine the first one may take a second."""
    store = await PostgresStore.open(url, **settings)
    try:
        async with asyncio.timeout(20):
            await _connect(store._connections)
            await _connect(store._writing)
    except BaseException:
        await store.aclose()
        raise
    return store


async def _connect(connections: Connections) -> None:
    while True:
        try:
            return await connections.run(_nothing)
        except Unavailable:
            await asyncio.sleep(0.01)


async def _nothing(connection: Connection) -> None:
    """Leave the connection unused."""


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
