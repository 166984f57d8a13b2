"""`LinkCache` on the primary that Redis Sentinels name, through failovers."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar
from zlib import crc32

from app.adapters.redis.cache import RedisCache
from app.adapters.redis.node import Address
from app.adapters.redis.recent_writes import RecentWrites
from app.adapters.redis.sentinel import Primary, PrimaryWatch, SentinelUrl
from app.concurrency.stopping import stop
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.ports import CachePage
from app.resilience.deadline import CACHE_CONNECT_S, CACHE_S

log = logging.getLogger(__name__)

T = TypeVar("T")


class RedisSentinelCache:
    """
    Asks one `RedisCache`: that of the present primary, watched from the first call on.

    After a failover, calls in flight fail and connections to the old primary are closed: nothing that it
    still holds is read. The `RecentWrites` of this process are written again to the new primary; versions
    make that harmless.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = CACHE_S,
        connect_timeout_s: float = CACHE_CONNECT_S,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Prepare; the first call connects.

        Args:
            url: see `SentinelUrl.parse`.
            timeout_s: see `RedisCache`, as for the rest; for the primary and for each sentinel.

        Raises:
            SettingsError: see `SentinelUrl.parse` and `RedisCache`.
        """
        self._url = SentinelUrl.parse(url)
        RedisCache(self._url.of(Address("127.0.0.1", 6379)))  # rejects a bad URL now, not at the first call
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._random = random
        self._watch = PrimaryWatch(
            self._url, timeout_s=connect_timeout_s, connect_timeout_s=connect_timeout_s
        )
        self._watching: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._why = "no sentinel has answered yet"
        self._primary: Primary | None = None
        self._node: RedisCache | None = None
        self._written = RecentWrites()
        self._owes_writes = False

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """One round trip."""
        return await self._ask(lambda node: node.get_many(slugs))

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """If it raises, any of them may have been written."""
        self._written.keep(resolutions, self._now(), self._server_of)
        return await self._ask(lambda node: node.put(resolutions))

    async def scan(self, cursor: int) -> CachePage:
        """Starts over on another primary: a cursor is valid on one server."""
        node = await self._present()
        server = crc32(str(self._primary).encode())
        page = await self._ask(lambda _: node.scan(cursor >> 32 if cursor & 0xFFFFFFFF == server else 0))
        return CachePage(page.slugs, page.next_cursor << 32 | server if page.next_cursor else 0, page.total)

    async def forget(self, slugs: Sequence[Slug]) -> None:
        self._written.forget(slugs)
        await self._ask(lambda node: node.forget(slugs))

    async def ping(self) -> None:
        """The primary has to answer."""
        await self._ask(lambda node: node.ping())

    async def aclose(self) -> None:
        if self._watching is not None:
            await stop([self._watching], "the watch of Redis Sentinel")
        await self._watch.aclose()
        if self._node is not None:
            await self._node.aclose()

    async def _ask(self, work: Callable[[RedisCache], Awaitable[T]]) -> T:
        node = await self._present()
        try:
            return await work(node)
        except Unavailable:
            # Also what a replica answers to a write.
            self._watch.look_now()
            raise

    async def _present(self) -> RedisCache:
        """Return the primary; wait for the first look only, and for `timeout_s` at most."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch.run(self._found))
        if not self._looked.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await self._looked.wait()
        if self._node is None:
            raise Unavailable("redis", self._why)
        return self._node

    # --- failover ----------------------------------------------------------------------

    async def _found(self, primary: Primary | Unavailable) -> None:
        """Go on with *primary*. Sentinels that do not answer change nothing: it may be well without them."""
        if isinstance(primary, Unavailable):
            self._why = primary.reason
        elif primary != self._primary:
            await self._follow(primary)
        self._looked.set()
        if self._owes_writes and self._node is not None:
            await self._write_again(self._node)

    async def _follow(self, primary: Primary) -> None:
        old, before = self._node, self._primary
        is_same = before is not None and before.address == primary.address
        self._primary = primary
        if before is not None and (not is_same or "" != before.run_id != primary.run_id):
            # Another server, or the same one after a restart: either may lack writes.
            self._owes_writes = True
        if is_same:
            return
        self._node = RedisCache(
            self._url.of(primary.address),
            timeout_s=self._timeout_s,
            connect_timeout_s=self._connect_timeout_s,
            random=self._random,
        )
        if before is not None:
            log.warning("redis has another primary: %s instead of %s", primary.address, before.address)
        if old is not None:
            with suppress(Unavailable):
                await old.aclose()

    def _server_of(self, _slug: Slug) -> Address | None:
        return self._primary.address if self._primary is not None else None

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _write_again(self, node: RedisCache) -> None:
        try:
            await node.put(self._written.all(self._now()))
        except Unavailable:
            self._watch.look_now()  # tried again after the next look
        else:
            self._owes_writes = False
