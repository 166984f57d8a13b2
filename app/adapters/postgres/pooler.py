"""
Refuses a connection pooler, such as PgBouncer, between Hopgate and PostgreSQL.

Hopgate keeps settings and prepared statements in its sessions, and bounds their number itself. A pooler
that gives each transaction another session breaks both, for some requests and not for others.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg import AsyncConnection

from app.domain.errors import SettingsError

POOLER = (
    "a connection pooler such as PgBouncer answers instead of PostgreSQL: name PostgreSQL's own address;"
    " Hopgate pools its connections itself"
)
_ANSWER_S = 2.0
_REFUSED_OPTIONS = "unsupported startup parameter"


class PoolerFound(psycopg.OperationalError):
    """The peer is no PostgreSQL server."""

    def __init__(self) -> None:
        super().__init__(POOLER)


async def refuse_pooler(connection: AsyncConnection[Any]) -> None:
    """
    Close *connection* if its session is not the one that the handshake named. One round trip.

    Raises:
        PoolerFound: a pooler is in between.
    """
    try:
        async with asyncio.timeout(_ANSWER_S):
            cursor = await connection.execute("SELECT pg_backend_pid()")
            row = await cursor.fetchone()
        if row is None or row[0] != connection.info.backend_pid:
            raise PoolerFound
    except TimeoutError:
        await connection.close()
        raise psycopg.OperationalError(f"no answer within {_ANSWER_S:g} s of connecting") from None
    except BaseException:
        await connection.close()
        raise


def is_pooler(error: psycopg.Error) -> bool:
    """Is *error*, of an attempt to connect, that of a pooler?"""
    return isinstance(error, PoolerFound) or _REFUSED_OPTIONS in str(error)


def check_server(url: str, *, what: str, options: str = "") -> None:
    """
    Connect once, to refuse a pooler before the start. A server that does not answer is no reason to.

    Args:
        what: names the setting in the error.
        options: session options, as the pool sends them.

    Raises:
        SettingsError: a pooler answers.
    """
    try:
        with psycopg.connect(url, connect_timeout=2, options=options, autocommit=True) as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
            found = row is None or row[0] != connection.info.backend_pid
    except psycopg.Error as error:
        found = is_pooler(error)
    if found:
        raise SettingsError(f"{what}: {POOLER}")
