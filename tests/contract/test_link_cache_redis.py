"""`LinkCache` in Redis beyond the contract: foreign values, lost replies, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop

from app.adapters.redis.cache import RedisCache
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.wire import cache_key, decode_resolution, encode_resolution
from tests.contract.cache_entries import A, B, cached, live
from tests.servers.proxy import FaultProxy
from tests.servers.redis import PrivateRedis

GARBAGE = [
    b"", b"|", b"7", b"7|", b"|{}", b"x|{}", b"-1|{}", b"1.5|{}", b" 3|{}", b"\xff\xfe|\x00", b"9|{]",
    b'4|{"url":5}', b"99999999999999999999|{}", b"nan|{}", b"5" * 1_000_000,
]  # fmt: skip


@pytest.fixture
async def redis_cache(redis_server: PrivateRedis) -> AsyncIterator[RedisCache]:
    redis_server.flush()
    # Long timeouts: these tests are not about time, and machines may be slow.
    cache = RedisCache(redis_server.url, timeout_s=20, connect_timeout_s=20)
    yield cache
    await cache.aclose()


@pytest.mark.services
@pytest.mark.parametrize("value", GARBAGE, ids=lambda v: repr(v[:16]))
async def test_garbage_is_a_miss_and_is_overwritten(
    redis_cache: RedisCache, redis_server: PrivateRedis, value: bytes
) -> None:
    """A value without a readable version must not stay."""
    redis_server.command("SET", cache_key(A), value)

    assert await cached(redis_cache, A) is None
    assert await redis_cache.put([live(A, 9)]) == 1
    assert await cached(redis_cache, A) == live(A, 9)


@pytest.mark.services
async def test_unreadable_value_keeps_its_version(
    redis_cache: RedisCache, redis_server: PrivateRedis
) -> None:
    """A newer release may have written it: an older version does not replace it."""
    redis_server.command("SET", cache_key(A), b"9|\x01new format")

    assert await redis_cache.put([live(A, 8)]) == 0
    assert redis_server.command("GET", cache_key(A)) == b"9|\x01new format"


@pytest.mark.services
async def test_key_of_another_type_is_garbage(redis_cache: RedisCache, redis_server: PrivateRedis) -> None:
    redis_server.command("RPUSH", cache_key(A), "x")

    assert await cached(redis_cache, A) is None
    assert await redis_cache.put([live(A, 1)]) == 1
    assert await cached(redis_cache, A) == live(A, 1)


@pytest.mark.services
@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999999])
async def test_redis_times_to_live(redis_server: PrivateRedis, draw: float) -> None:
    """Absent 5–15 s; gone at least 10 min; live a day ± 10 %."""
    redis_server.flush()
    cache = RedisCache(redis_server.url, timeout_s=2, random=lambda: draw)
    await cache.put([Resolution.absent(Slug("absent")), Resolution(Slug("gone"), 2), live(A, 1)])
    await cache.aclose()

    def ttl_s(slug: Slug) -> float:
        reply = redis_server.command("PTTL", cache_key(slug))
        assert isinstance(reply, int)
        return reply / 1000

    assert 4 <= ttl_s(Slug("absent")) <= 15
    assert ttl_s(Slug("gone")) >= 600
    assert 24 * 3600 * 0.9 - 1 <= ttl_s(A) <= 24 * 3600 * 1.1


@pytest.mark.services
async def test_rejected_put_does_not_extend_the_ttl(
    redis_cache: RedisCache, redis_server: PrivateRedis
) -> None:
    """A popular absent slug is looked up in the store again after 15 s at the latest."""
    await redis_cache.put([Resolution.absent(A)])
    redis_server.command("PEXPIRE", cache_key(A), 500)

    assert await redis_cache.put([Resolution.absent(A)]) == 0
    ttl = redis_server.command("PTTL", cache_key(A))
    assert isinstance(ttl, int)
    assert ttl <= 500


@pytest.mark.services
async def test_stored_value_is_the_wire_format(redis_cache: RedisCache, redis_server: PrivateRedis) -> None:
    await redis_cache.put([live(A, 12)])

    value = redis_server.command("GET", cache_key(A))
    assert value == encode_resolution(live(A, 12))
    assert decode_resolution(A, value) == live(A, 12)


@pytest.mark.services
async def test_put_survives_a_flushed_script(redis_cache: RedisCache, redis_server: PrivateRedis) -> None:
    """Every restart of Redis clears the script cache."""
    redis_server.command("SCRIPT", "FLUSH")
    assert await redis_cache.put([live(A, 1), live(B, 1)]) == 2

    redis_server.command("SCRIPT", "FLUSH")
    assert await redis_cache.put([live(A, 1), live(B, 2)]) == 1


@pytest.mark.services
async def test_cancelled_reads_never_swap_replies(redis_server: PrivateRedis) -> None:
    """A storm of cancellations on few connections; every reply still belongs to its request."""
    redis_server.flush()
    cache = RedisCache(redis_server.url, timeout_s=2, max_connections=4)
    slugs = [Slug(f"storm{n:03}") for n in range(100)]
    await cache.put([live(slug, n + 1) for n, slug in enumerate(slugs)])
    rng = random.Random(11)
    wrong: list[object] = []
    read = 0

    async def reader(index: int) -> None:
        nonlocal read
        found = await cached(cache, slugs[index])
        read += 1
        if found != live(slugs[index], index + 1):
            wrong.append((index, found))

    async def writer(index: int) -> None:
        if await cache.put([live(slugs[index], 1), live(Slug(f"other{index}"), 1)]) > 2:
            wrong.append(index)

    for _ in range(60):
        tasks = [asyncio.create_task(reader(rng.randrange(100))) for _ in range(30)]
        tasks += [asyncio.create_task(writer(rng.randrange(1, 100))) for _ in range(5)]
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        for task in rng.sample(tasks, 15):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]

    assert not wrong
    assert read > 300
    # No connection was lost on the way.
    await asyncio.gather(*(cached(cache, slug) for slug in slugs))
    await cache.aclose()


async def test_connect_sends_no_handshake() -> None:
    """redis-py's defaults send HELLO, CLIENT SETINFO and more, a round trip each, at every connect."""
    received = bytearray()

    async def pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            received.extend(data)
            writer.write(b"+PONG\r\n")
        writer.close()

    async with await asyncio.start_server(pong, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        cache = RedisCache(f"redis://127.0.0.1:{port}/0", timeout_s=2, connect_timeout_s=2)
        await cache.ping()
        await cache.aclose()

    assert bytes(received) == b"*1\r\n$4\r\nPING\r\n"


async def _is_unavailable(cache: RedisCache, *, writes_only: bool = False) -> None:
    with pytest.raises(Unavailable, match="redis is unavailable"):
        await cache.put([live(A, 9)])
    if writes_only:
        await cached(cache, A)
        return
    with pytest.raises(Unavailable, match="redis is unavailable"):
        await cached(cache, A)
    with pytest.raises(Unavailable, match="redis is unavailable"):
        await cache.ping()


@pytest.mark.services
class TestRefusals:
    """Every way in which Redis refuses is `Unavailable`."""

    @pytest.fixture
    def server(self) -> Iterator[PrivateRedis]:
        with PrivateRedis() as server:
            yield server

    @pytest.fixture
    async def cache(self, server: PrivateRedis) -> AsyncIterator[RedisCache]:
        cache = RedisCache(server.url, timeout_s=0.3)
        yield cache
        await cache.aclose()

    async def test_killed_then_restarted(self, cache: RedisCache, server: PrivateRedis) -> None:
        await cache.put([live(A, 1)])
        server.kill()
        await _is_unavailable(cache)
        server.start()
        assert await cache.put([live(A, 1)]) == 1
        assert await cached(cache, A) == live(A, 1)

    async def test_unresponsive_then_resumed(self, cache: RedisCache, server: PrivateRedis) -> None:
        await cache.put([live(A, 1)])
        server.pause()
        loop = asyncio.get_running_loop()
        start = loop.time()
        results = await asyncio.gather(*(cached(cache, A) for _ in range(100)), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        # Waiting for a connection, opening it, its handshake and the reply are bounded each.
        assert loop.time() - start < 4 * 0.3
        server.resume()
        assert await cached(cache, A) == live(A, 1)

    async def test_out_of_memory(self, cache: RedisCache, server: PrivateRedis) -> None:
        server.config_set("maxmemory", "1")
        await _is_unavailable(cache, writes_only=True)
        server.config_set("maxmemory", "0")
        assert await cache.put([live(A, 1)]) == 1

    async def test_read_only_replica(self, cache: RedisCache, server: PrivateRedis) -> None:
        server.config_set("replica-serve-stale-data", "yes")
        server.command("REPLICAOF", "127.0.0.1", "1")
        await _is_unavailable(cache, writes_only=True)

    async def test_stale_replica(self, cache: RedisCache, server: PrivateRedis) -> None:
        server.config_set("replica-serve-stale-data", "no")
        server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(Unavailable):
            await cached(cache, A)
        with pytest.raises(Unavailable):
            await cache.put([live(A, 1)])

    async def test_too_few_replicas(self, cache: RedisCache, server: PrivateRedis) -> None:
        server.config_set("min-replicas-to-write", "1")
        await _is_unavailable(cache, writes_only=True)

    async def test_endless_script(self, cache: RedisCache, server: PrivateRedis) -> None:
        await cache.put([live(A, 1)])
        server.config_set("busy-reply-threshold", "10")
        endless = asyncio.create_task(
            asyncio.to_thread(self._swallow, server, "EVAL", "while true do end", 0)
        )
        while True:
            try:
                await cached(cache, A)
            except Unavailable as error:
                if "BUSY" in error.reason:
                    break
            await asyncio.sleep(0.01)
        await _is_unavailable(cache)
        await asyncio.to_thread(server.command, "SCRIPT", "KILL")
        await endless
        assert await cached(cache, A) == live(A, 1)

    async def test_password_is_redacted(self, server: PrivateRedis) -> None:
        server.config_set("requirepass", "right")
        cache = RedisCache(f"redis://:hush%21hush@127.0.0.1:{server.port}/0", timeout_s=0.3)
        with pytest.raises(Unavailable) as caught:
            await cached(cache, A)
        await cache.aclose()
        server.kill()

        assert "hush" not in str(caught.value)
        assert "hush" not in repr(cache)

    @staticmethod
    def _swallow(server: PrivateRedis, *arguments: str | int) -> None:
        try:
            server.command(*arguments)
        except Exception:  # noqa: BLE001 - it is killed, on purpose
            return


@pytest.mark.services
async def test_broken_disk() -> None:
    """MISCONF: reads work, writes are refused."""
    with PrivateRedis("--enable-protected-configs", "yes") as server:
        cache = RedisCache(server.url, timeout_s=2)
        await cache.put([live(A, 1)])
        server.config_set("save", "3600 1")
        server.config_set("dir", "/proc")
        server.command("BGSAVE")
        while server.info()["rdb_last_bgsave_status"] != "err":
            await asyncio.sleep(0.02)

        await _is_unavailable(cache, writes_only=True)
        assert await cached(cache, A) == live(A, 1)
        await cache.aclose()


@pytest.mark.services
def test_reset_connections_are_replaced(redis_server: PrivateRedis) -> None:
    """On uvloop, whose transports raise a plain RuntimeError for a reset connection."""

    async def check(proxy: FaultProxy) -> None:
        cache = RedisCache(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=2)
        for call in (lambda: cached(cache, A), lambda: cache.put([live(A, 1)]), cache.ping):
            await call()
            proxy.reset()
            await asyncio.sleep(0.05)  # the loop has seen it
            with contextlib.suppress(Unavailable):
                await call()
            await call()
        await cache.aclose()

    with FaultProxy(redis_server.port) as proxy:
        uvloop.run(check(proxy))
