"""`LinkCache`: what every cache must do, over each of them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.adapters.cache_memory import MemoryCache
from app.adapters.cache_redis import RedisCache
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.ports import LinkCache
from app.wire import MAX_VERSION, cache_key, decode_resolution, encode_resolution
from tests.servers.redis import PrivateRedis

A, B = Slug("aaaaaaa"), Slug("bbbbbbb")
_fresh = itertools.count()


def live(slug: Slug, version: int) -> Resolution:
    return Resolution(slug, version, f"https://example.com/{slug}/{version}", 301, True, 1.5, 9e9)


@pytest.fixture
async def redis_cache(redis_server: PrivateRedis) -> AsyncIterator[RedisCache]:
    redis_server.flush()
    # Slow machines must not fail what is not about time.
    cache = RedisCache(redis_server.url, timeout_s=2)
    yield cache
    await cache.aclose()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[LinkCache]:
    if request.param == "memory":
        memory = MemoryCache()
        yield memory
        await memory.aclose()
    else:
        redis_server = request.getfixturevalue("redis_server")
        redis_server.flush()
        over_redis = RedisCache(redis_server.url, timeout_s=2)
        yield over_redis
        await over_redis.aclose()


# --- every cache -----------------------------------------------------------------------


async def test_a_miss_is_none(cache: LinkCache) -> None:
    """Return what is cached; None on a miss."""
    assert await cache.get(A) is None


@pytest.mark.parametrize(
    "resolution",
    [live(A, 1), Resolution(A, 7), Resolution.absent(A), Resolution(A, MAX_VERSION, "https://x.example/")],
    ids=["live", "gone", "absent", "highest"],
)
async def test_what_was_put_is_read_field_by_field(cache: LinkCache, resolution: Resolution) -> None:
    """Return what is cached."""
    assert await cache.put([resolution]) == 1

    assert await cache.get(A) == resolution


@pytest.mark.parametrize("held", [live(A, 3), Resolution(A, 3)], ids=["live", "gone"])
async def test_older_and_equal_versions_lose(cache: LinkCache, held: Resolution) -> None:
    """Write each resolution unless the cache holds the same or a newer version of it."""
    await cache.put([held])

    assert await cache.put([live(A, 2)]) == 0
    assert await cache.put([Resolution(A, 3, "https://other.example/")]) == 0
    assert await cache.put([Resolution.absent(A)]) == 0
    assert await cache.get(A) == held


async def test_newer_versions_win(cache: LinkCache) -> None:
    """Tombstones are no exception: a link may be enabled again."""
    for resolution in [live(A, 1), Resolution(A, 2), live(A, 3)]:
        assert await cache.put([resolution]) == 1
        assert await cache.get(A) == resolution


async def test_absent_loses_to_any_real_link(cache: LinkCache) -> None:
    """Absent ones (version 0) lose to any real link."""
    assert await cache.put([Resolution.absent(A)]) == 1
    assert await cache.put([Resolution.absent(A)]) == 0

    assert await cache.put([live(A, 1)]) == 1
    assert await cache.get(A) == live(A, 1)


async def test_put_counts_what_it_wrote(cache: LinkCache) -> None:
    """Returns how many were written, over many slugs and repetitions in one call."""
    await cache.put([live(B, 5)])

    assert await cache.put([live(A, 1), live(B, 4), live(A, 3), live(A, 2), live(B, 6)]) == 3
    assert (await cache.get(A), await cache.get(B)) == (live(A, 3), live(B, 6))


async def test_put_of_nothing(cache: LinkCache) -> None:
    assert await cache.put([]) == 0


async def test_put_of_more_than_a_pipeline(cache: LinkCache) -> None:
    """Events can carry a thousand slugs each."""
    many = [live(Slug(f"slug{n}"), 1) for n in range(1203)]

    assert await cache.put(many) == len(many)
    assert await cache.get(many[-1].slug) == many[-1]


async def test_concurrent_puts_end_at_the_newest_version(cache: LinkCache) -> None:
    """The compare and the set are one step, whoever else writes."""
    versions = list(range(1, 201))
    random.Random(5).shuffle(versions)

    written = await asyncio.gather(*(cache.put([live(A, v), live(B, 201 - v)]) for v in versions))

    assert (await cache.get(A), await cache.get(B)) == (live(A, 200), live(B, 200))
    assert sum(written) >= 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(st.integers(0, 12), min_size=1, max_size=12))
async def test_any_order_and_repetition_ends_at_the_highest_version(
    cache: LinkCache, versions: list[int]
) -> None:
    """An older version never replaces a newer one."""
    slug = Slug(f"slug{next(_fresh)}")

    for version in versions:
        await cache.put([live(slug, version) if version else Resolution.absent(slug)])

    held = await cache.get(slug)
    assert held is not None
    assert held.version == max(versions)


async def test_ping(cache: LinkCache) -> None:
    await cache.ping()


# --- in this process -------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999999])
async def test_memory_times_to_live(draw: float) -> None:
    """Absent 5–15 s; gone at least 10 min; live a day ± 10 %."""
    clock = Clock()
    cache = MemoryCache(clock=clock, random=lambda: draw)
    await cache.put([Resolution.absent(Slug("absent")), Resolution(Slug("gone"), 2), live(A, 1)])

    clock.now += 4.99
    assert await cache.get(Slug("absent")) is not None
    clock.now += 10.02
    assert await cache.get(Slug("absent")) is None
    clock.now += 600
    assert await cache.get(Slug("gone")) is not None
    assert await cache.get(A) is not None
    clock.now += 24 * 3600 * 1.1
    assert await cache.get(Slug("gone")) is None
    assert await cache.get(A) is None


async def test_memory_is_bounded_and_drops_what_would_expire_soonest() -> None:
    """What has expired, then the absent, then the oldest links."""
    clock = Clock()
    cache = MemoryCache(max_entries=3, clock=clock, random=lambda: 0.5)
    await cache.put([live(A, 1)])
    clock.now += 1
    await cache.put([live(B, 1)])
    for n in range(100):
        await cache.put([Resolution.absent(Slug(f"scan{n}"))])
    assert len(cache) == 3
    assert await cache.get(A) is not None
    assert await cache.get(B) is not None

    clock.now += 1
    await cache.put([live(Slug("c"), 1), live(Slug("d"), 1)])
    assert await cache.get(A) is None
    assert await cache.get(B) is not None
    assert len(cache) == 3


async def test_memory_does_not_grow_with_changes() -> None:
    """A link that changes for ever costs one entry."""
    cache = MemoryCache(max_entries=10)
    for version in range(1, 1000):
        await cache.put([live(A, version)])

    assert len(cache) == 1
    assert len(cache._ends) <= 21


# --- Redis -----------------------------------------------------------------------------

GARBAGE = [
    b"", b"|", b"7", b"7|", b"|{}", b"x|{}", b"-1|{}", b"1.5|{}", b" 3|{}", b"\xff\xfe|\x00", b"9|{]",
    b'4|{"url":5}', b"99999999999999999999|{}", b"nan|{}", b"5" * 1_000_000,
]  # fmt: skip


@pytest.mark.services
@pytest.mark.parametrize("value", GARBAGE, ids=lambda v: repr(v[:16]))
async def test_garbage_is_a_miss_and_is_overwritten(
    redis_cache: RedisCache, redis_server: PrivateRedis, value: bytes
) -> None:
    """None for an entry that cannot be read; a value nobody can read must not stay."""
    redis_server.command("SET", cache_key(A), value)

    assert await redis_cache.get(A) is None
    assert await redis_cache.put([live(A, 9)]) == 1
    assert await redis_cache.get(A) == live(A, 9)


@pytest.mark.services
async def test_an_unreadable_value_keeps_its_version(
    redis_cache: RedisCache, redis_server: PrivateRedis
) -> None:
    """A newer release may have written it: an older version does not replace it."""
    redis_server.command("SET", cache_key(A), b"9|\x01new format")

    assert await redis_cache.put([live(A, 8)]) == 0
    assert redis_server.command("GET", cache_key(A)) == b"9|\x01new format"


@pytest.mark.services
async def test_another_type_of_key_is_garbage_too(
    redis_cache: RedisCache, redis_server: PrivateRedis
) -> None:
    redis_server.command("RPUSH", cache_key(A), "x")

    assert await redis_cache.get(A) is None
    assert await redis_cache.put([live(A, 1)]) == 1
    assert await redis_cache.get(A) == live(A, 1)


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
async def test_losing_does_not_prolong_a_life(redis_cache: RedisCache, redis_server: PrivateRedis) -> None:
    """An absent slug that is asked for all the time is looked up again after 15 s at the latest."""
    await redis_cache.put([Resolution.absent(A)])
    redis_server.command("PEXPIRE", cache_key(A), 500)

    assert await redis_cache.put([Resolution.absent(A)]) == 0
    ttl = redis_server.command("PTTL", cache_key(A))
    assert isinstance(ttl, int)
    assert ttl <= 500


@pytest.mark.services
async def test_the_value_is_what_wire_says(redis_cache: RedisCache, redis_server: PrivateRedis) -> None:
    await redis_cache.put([live(A, 12)])

    value = redis_server.command("GET", cache_key(A))
    assert value == encode_resolution(live(A, 12))
    assert decode_resolution(A, value) == live(A, 12)


@pytest.mark.services
async def test_put_survives_a_forgotten_script(redis_cache: RedisCache, redis_server: PrivateRedis) -> None:
    """Every restart of Redis forgets it."""
    redis_server.command("SCRIPT", "FLUSH")
    assert await redis_cache.put([live(A, 1), live(B, 1)]) == 2

    redis_server.command("SCRIPT", "FLUSH")
    assert await redis_cache.put([live(A, 1), live(B, 2)]) == 1


@pytest.mark.services
async def test_cancelled_readers_never_read_anothers_reply(redis_server: PrivateRedis) -> None:
    """A cancel storm on few connections; every answer still belongs to its question."""
    redis_server.flush()
    cache = RedisCache(redis_server.url, timeout_s=2, max_connections=4)
    slugs = [Slug(f"storm{n:03}") for n in range(100)]
    await cache.put([live(slug, n + 1) for n, slug in enumerate(slugs)])
    rng = random.Random(11)
    wrong: list[object] = []
    read = 0

    async def reader(index: int) -> None:
        nonlocal read
        held = await cache.get(slugs[index])
        read += 1
        if held != live(slugs[index], index + 1):
            wrong.append((index, held))

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
    await asyncio.gather(*(cache.get(slug) for slug in slugs))
    await cache.aclose()


async def _is_unavailable(cache: RedisCache, *, writes_only: bool = False) -> None:
    with pytest.raises(Unavailable, match="redis is unavailable"):
        await cache.put([live(A, 9)])
    if writes_only:
        await cache.get(A)
        return
    with pytest.raises(Unavailable, match="redis is unavailable"):
        await cache.get(A)
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

    async def test_dead_then_back(self, cache: RedisCache, server: PrivateRedis) -> None:
        await cache.put([live(A, 1)])
        server.kill()
        await _is_unavailable(cache)
        server.start()
        assert await cache.put([live(A, 1)]) == 1
        assert await cache.get(A) == live(A, 1)

    async def test_silent_then_back(self, cache: RedisCache, server: PrivateRedis) -> None:
        await cache.put([live(A, 1)])
        server.pause()
        loop = asyncio.get_running_loop()
        start = loop.time()
        results = await asyncio.gather(*(cache.get(A) for _ in range(100)), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        # Waiting for a connection, opening it, its handshake, the answer: each is bounded.
        assert loop.time() - start < 4 * 0.3
        server.resume()
        assert await cache.get(A) == live(A, 1)

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
            await cache.get(A)
        with pytest.raises(Unavailable):
            await cache.put([live(A, 1)])

    async def test_too_few_replicas(self, cache: RedisCache, server: PrivateRedis) -> None:
        server.config_set("min-replicas-to-write", "1")
        await _is_unavailable(cache, writes_only=True)

    async def test_a_script_that_does_not_end(self, cache: RedisCache, server: PrivateRedis) -> None:
        await cache.put([live(A, 1)])
        server.config_set("busy-reply-threshold", "10")
        endless = asyncio.create_task(
            asyncio.to_thread(self._swallow, server, "EVAL", "while true do end", 0)
        )
        while True:
            try:
                await cache.get(A)
            except Unavailable as error:
                if "BUSY" in error.reason:
                    break
            await asyncio.sleep(0.01)
        await _is_unavailable(cache)
        await asyncio.to_thread(server.command, "SCRIPT", "KILL")
        await endless
        assert await cache.get(A) == live(A, 1)

    async def test_the_password_is_told_to_nobody(self, server: PrivateRedis) -> None:
        server.config_set("requirepass", "right")
        cache = RedisCache(f"redis://:hush%21hush@127.0.0.1:{server.port}/0", timeout_s=0.3)
        with pytest.raises(Unavailable) as caught:
            await cache.get(A)
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
async def test_a_broken_disk() -> None:
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
        assert await cache.get(A) == live(A, 1)
        await cache.aclose()
