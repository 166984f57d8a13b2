"""The minimum for a redirect from Redis: granian and one GET by redis-py."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import redis.asyncio

from bench.servers.bare_rsgi import HEADERS

PREFIX = "bench:"


class Application:
    """Answers `/{slug}` with the value of the key `bench:{slug}`."""

    def __rsgi_init__(self, _loop: asyncio.AbstractEventLoop) -> None:
        self._get = redis.asyncio.Redis.from_url(os.environ["HOPGATE_REDIS_URL"], decode_responses=True).get

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        target = await self._get(PREFIX + scope.path[1:])
        if target is None:
            protocol.response_empty(404, [])
        else:
            protocol.response_empty(302, [("location", target), HEADERS[1]])


app = Application()
