"""`LinkCache` in Redis: one string per slug, batch reads by MGET, each write a compare-and-set."""

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

from app.adapters.redis.shared_connection import SharedConnection
from app.domain.cache_ttl import time_to_live_s
from app.domain.errors import SettingsError, Unavailable
from app.domain.link import Resolution, Slug
from app.ports import CachePage
from app.resilience.deadline import CACHE_CONNECT_S, CACHE_S
from app.wire import MAX_VERSION, cache_key, decode_resolution, encode_resolution, slug_of_key

# KEYS[1] the slug's key; ARGV: version, value, time to live in ms, and a value that the
# caller could not decode ('' if none). Returns 1 if it wrote, else the value that is kept. The
# version of an undecodable value still counts: a newer release may have written it. Versions compare
# within one epoch: see `Resolution.replaces`.
_PUT = b"""
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'table' then
  if string.sub(held.err, 1, 9) ~= 'WRONGTYPE' then return held end
  held = false
end
local function epoch(value) return string.match(value, '^%%d+|{"epoch":(%%d+)') or '0' end
if held and (ARGV[1] == '0' or string.sub(held, 1, 2) == '0|' or epoch(held) == epoch(ARGV[2])) then
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
    A cache client with bounded connections and a timeout for each step.

    A call waits at most `timeout_s` for a connection, `connect_timeout_s` where a new one
    has to be opened, and `timeout_s` for each reply. Nothing is retried: on the redirect path
    the store is the fallback. Batch reads share one connection, beside those of all other calls.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = CACHE_S,
        connect_timeout_s: float = CACHE_CONNECT_S,
        max_connections: int = 32,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Prepare the client; the first call connects.

        Args:
            url: `redis://`, `rediss://` or `unix://`; options in its query override these.
            timeout_s: for each reply, and for a free connection.
            connect_timeout_s: for opening a connection.
            max_connections: the most calls in flight, batch reads aside.
            random: returns floats in [0, 1), for the jitter of the times to live.

        Raises:
            SettingsError: the driver cannot parse *url*, which is not quoted: it holds the password.
        """
        if "," in urlsplit(url).netloc.rpartition("@")[2]:
            raise SettingsError(
                "the URL of Redis names several hosts: name one, any one node of a Redis Cluster"
                " (redis+cluster://), or the sentinels of a primary (redis+sentinel://host,host/NAME/0)"
            )
        self._timeout_s = timeout_s
        self._random = random
        self._password = urlsplit(url).password or ""
        # redis-py's pool raises when it is exhausted. Callers wait on this semaphore instead,
        # where a cancelled waiter cannot leak a connection.
        self._max_connections = max_connections
        self._slots = asyncio.Semaphore(max_connections)
        try:
            self._client = redis.asyncio.Redis.from_url(
                url,
                max_connections=max_connections,
                socket_timeout=timeout_s,
                socket_connect_timeout=connect_timeout_s,
                # redis-py's default of ten retries turns an unresponsive Redis into a minute's wait.
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
                decode_responses=False,
                # The defaults of all three cost round trips at every connect; the second also
                # relaxes timeouts to 10 s.
                protocol=2,
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
                driver_info=None,
            )
            # redis-py rejects unknown options only when it makes a connection.
            self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            self._reads = SharedConnection(self._client.connection_pool.make_connection)
        except (TypeError, ValueError):
            raise SettingsError(
                "the URL of Redis has an option that its driver does not know, or whose value it cannot parse"
            ) from None

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """One round trip."""
        if not slugs:
            return {}
        try:
            # A key of another type was not written by Hopgate; MGET reports it as a miss, as it should.
            values = await self._reads.execute("MGET", *map(cache_key, slugs))
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return decoded(slugs, values)

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """If it raises, any of them may have been written: each is a compare-and-set of its own."""
        written = 0
        for start in range(0, len(resolutions), _MAX_CALLS_A_PIPELINE):
            written += await self._put_some(resolutions[start : start + _MAX_CALLS_A_PIPELINE])
        return written

    async def scan(self, cursor: int) -> CachePage:
        async with self._connection_slot(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.scan(cursor, match=cache_key(Slug("*")), count=_SCAN_COUNT)
            pipeline.dbsize()
            (next_cursor, keys), total = await pipeline.execute()
        return CachePage(tuple(map(slug_of_key, keys)), int(next_cursor), total)

    async def forget(self, slugs: Sequence[Slug]) -> None:
        async with self._connection_slot():
            raise_first(await self._pipeline([("UNLINK", cache_key(slug)) for slug in slugs]))

    async def ping(self) -> None:
        async with self._connection_slot():
            await self._client.ping()

    async def aclose(self) -> None:
        try:
            await self._reads.aclose()
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
            # A kept value that cannot be decoded is replaced only while it is still that exact
            # value, so a decodable one written in between is safe.
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
        # A restart clears the script cache. Nothing ran on NOSCRIPT, so this is no second write.
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            evaluated = await self._pipeline([("EVAL", _PUT, 1, *calls[i]) for i in unknown])
            for i, reply in zip(unknown, evaluated, strict=True):
                replies[i] = reply
        raise_first(replies)
        return replies

    async def _pipeline(self, commands: Sequence[Command]) -> list[object]:
        # No MULTI, and one key per command: the same commands work on a node of a cluster.
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
            # uvloop's message for a write to a connection that was reset while idle in the pool;
            # it has no exception type of its own.
            if "closed=True" not in str(error):
                raise
            raise Unavailable("redis", "the connection was reset") from error
        finally:
            self._slots.release()

    def _unavailable(self, error: Exception) -> Exception:
        """Return the `Unavailable` to raise for an *error* of the client or an error reply."""
        reason = str(error) or type(error).__name__
        # A server that does not know a command repeats its arguments, those of AUTH included.
        for secret in {self._password, unquote(self._password)} - {""}:
            reason = reason.replace(secret, "***")
        return Unavailable("redis", reason)


def decoded(slugs: Sequence[Slug], values: Sequence[object]) -> dict[Slug, Resolution]:
    """Return the resolutions among *values*, which are aligned with *slugs*."""
    held = {}
    for slug, value in zip(slugs, values, strict=True):
        resolution = decode_resolution(slug, value) if isinstance(value, bytes) else None
        if resolution is not None:
            held[slug] = resolution
    return held


def raise_first(replies: Iterable[object]) -> None:
    """Raise the first error among *replies*, if any."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
