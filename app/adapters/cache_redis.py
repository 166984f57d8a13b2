"""`LinkCache` in Redis: one string a slug, many read by one MGET, each written by a compare-and-set."""

from __future__ import annotations

import asyncio
import hashlib
import random as random_module
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from app.adapters.cache_ttl import time_to_live_s
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.ports import CachePage
from app.settings import SettingsError
from app.wire import MAX_VERSION, cache_key, decode_resolution, encode_resolution, slug_of_key

# KEYS[1] the slug's key; ARGV: version, value, time to live in ms, and a value that the
# caller found unreadable ('' if none). Gives 1 if it wrote, else the value that won. The
# version of an unreadable value still counts: a newer release may have written it.
_PUT = b"""
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'table' then
  if string.sub(held.err, 1, 9) ~= 'WRONGTYPE' then return held end
  held = false
end
if held then
  local old, new = tonumber(string.match(held, '^(%%d+)|')), tonumber(ARGV[1])
  if old and old <= %d and (old > new or (old == new and held ~= ARGV[4])) then return held end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""" % (MAX_VERSION,)
_PUT_SHA = hashlib.sha1(_PUT, usedforsecurity=False).hexdigest()

# One pipeline blocks Redis for about a millisecond at this size.
_MAX_CALLS_A_PIPELINE = 500
_SCAN_COUNT = 500

_Call = tuple[str, int, bytes, int, bytes]
Command = tuple[str | bytes | int, ...]


class RedisCache:
    """
    Bounded in everything: connections, and the time each step may take.

    A call waits at most `timeout_s` for a connection, `connect_timeout_s` where a new one
    has to be opened, and `timeout_s` for each answer. Nothing is tried twice: a caller on
    the redirect path has a store to ask, and that is the retry.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.06,
        connect_timeout_s: float = 0.2,
        max_connections: int = 32,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Prepare the client; the first call connects.

        Args:
            url: `redis://`, `rediss://` or `unix://`, options in its query win over these.
            timeout_s: for each answer, and for a free connection.
            connect_timeout_s: for opening one.
            max_connections: how many calls may be under way at once.
            random: gives floats in [0, 1), for the jitter of the times to live.

        Raises:
            SettingsError: the driver cannot read *url* (it is not quoted: it holds the password).
        """
        self._timeout_s = timeout_s
        self._random = random
        self._password = urlsplit(url).password or ""
        # The pool refuses when it is exhausted. Waiting happens here, where a cancelled
        # waiter cannot lose a connection.
        self._max_connections = max_connections
        self._slots = asyncio.Semaphore(max_connections)
        try:
            self._client = redis.asyncio.Redis.from_url(
                url,
                max_connections=max_connections,
                socket_timeout=timeout_s,
                socket_connect_timeout=connect_timeout_s,
                # The library's default of ten retries turns a silent Redis into a minute's wait.
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
                decode_responses=False,
                # All three cost round trips at every connect; the second also relaxes timeouts to 10 s.
                protocol=2,
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
                driver_info=None,
            )
            # Of options that it does not know, the library says so only here.
            self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError):
            raise SettingsError(
                "the URL of Redis has an option that its driver does not know, or cannot read the value of"
            ) from None

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """See `LinkCache.get_many`. One round trip."""
        keys = [cache_key(slug) for slug in slugs]
        async with self._connection_slot():
            # What is there and no string was not written by us; MGET calls it a miss, which is right.
            values = await self._client.mget(keys) if keys else []
        return readable(slugs, values)

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """
        See `LinkCache.put`.

        If it raises, any of them may have been written: each is a compare-and-set of its own.
        """
        written = 0
        for start in range(0, len(resolutions), _MAX_CALLS_A_PIPELINE):
            written += await self._put_some(resolutions[start : start + _MAX_CALLS_A_PIPELINE])
        return written

    async def scan(self, cursor: int) -> CachePage:
        """See `LinkCache.scan`."""
        async with self._connection_slot(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.scan(cursor, match=cache_key(Slug("*")), count=_SCAN_COUNT)
            pipeline.dbsize()
            (next_cursor, keys), total = await pipeline.execute()
        return CachePage(tuple(map(slug_of_key, keys)), int(next_cursor), total)

    async def forget(self, slugs: Sequence[Slug]) -> None:
        """See `LinkCache.forget`."""
        async with self._connection_slot():
            raise_first(await self._pipeline([("UNLINK", cache_key(slug)) for slug in slugs]))

    async def ping(self) -> None:
        """See `LinkCache.ping`."""
        async with self._connection_slot():
            await self._client.ping()

    async def aclose(self) -> None:
        """See `LinkCache.aclose`."""
        try:
            await self._client.aclose()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def _put_some(self, resolutions: Sequence[Resolution]) -> int:
        calls: list[_Call] = [
            (
                cache_key(resolution.slug),
                resolution.version,
                encode_resolution(resolution),
                int(time_to_live_s(resolution, self._random) * 1000),
                b"",
            )
            for resolution in resolutions
        ]
        async with self._connection_slot():
            replies = await self._run(calls)
            # What won but cannot be read is overwritten by its exact value, so that a
            # readable one that came in between is safe.
            again = [
                (*call[:4], reply)
                for resolution, call, reply in zip(resolutions, calls, replies, strict=True)
                if isinstance(reply, bytes) and decode_resolution(resolution.slug, reply) is None
            ]
            if again:
                replies += await self._run(again)
        return replies.count(1)

    async def _run(self, calls: Sequence[_Call]) -> list[object]:
        replies = await self._pipeline([("EVALSHA", _PUT_SHA, 1, *call) for call in calls])
        # After a restart the script is unknown. Nothing ran then, so this is not a repetition.
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            second = await self._pipeline([("EVAL", _PUT, 1, *calls[i]) for i in unknown])
            for i, reply in zip(unknown, second, strict=True):
                replies[i] = reply
        raise_first(replies)
        return replies

    async def _pipeline(self, commands: Sequence[Command]) -> list[object]:
        # No MULTI, and one key a command: the same commands work on a node of a cluster.
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))

    @asynccontextmanager
    async def _connection_slot(self) -> AsyncIterator[None]:
        if self._slots.locked():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._slots.acquire()
            except TimeoutError:
                raise Unavailable("redis", f"all {self._max_connections} connections are busy") from None
        else:
            await self._slots.acquire()
        try:
            yield
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        except RuntimeError as error:
            # uvloop's word for a write to a connection that was reset while it lay in the pool.
            if "closed=True" not in str(error):
                raise
            raise Unavailable("redis", "the connection was reset") from error
        finally:
            self._slots.release()

    def _unavailable(self, error: Exception) -> Exception:
        """Return what to raise for what the client raised, or was answered."""
        reason = str(error) or type(error).__name__
        # A server that does not know a command repeats its arguments, AUTH's too.
        for secret in {self._password, unquote(self._password)} - {""}:
            reason = reason.replace(secret, "***")
        return Unavailable("redis", reason)


def readable(slugs: Sequence[Slug], values: Sequence[object]) -> dict[Slug, Resolution]:
    """Return what *values* say of *slugs*, without what is no resolution."""
    held = {}
    for slug, value in zip(slugs, values, strict=True):
        resolution = decode_resolution(slug, value) if isinstance(value, bytes) else None
        if resolution is not None:
            held[slug] = resolution
    return held


def raise_first(replies: Iterable[object]) -> None:
    """Raise the first error among *replies*, if there is one."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
