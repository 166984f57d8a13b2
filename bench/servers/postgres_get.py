"""The minimum for a redirect from PostgreSQL: granian and one SELECT through a psycopg pool."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from psycopg_pool import AsyncConnectionPool

from bench.servers.bare_rsgi import HEADERS

_SELECT = b"SELECT long_url FROM links WHERE slug = %s AND removed_at IS NULL"


class Application:
    """Answers `/{slug}` with the target of the link, and ignores its other fields."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        url = os.environ["HOPGATE_DATABASE_URL"]
        self._pool = AsyncConnectionPool(
            url, min_size=8, max_size=8, open=False, kwargs={"autocommit": True, "prepare_threshold": 0}
        )
        loop.run_until_complete(self._pool.open(wait=True))

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._pool.close())

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_SELECT, (scope.path[1:],))).fetchone()
        if row is None:
            protocol.response_empty(404, [])
        else:
            protocol.response_empty(302, [("location", row[0]), HEADERS[1]])


app = Application()
