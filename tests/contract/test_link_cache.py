"""`LinkCache`: the contract, run on every cache; then the in-process cache alone."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.adapters.guarded import guarded_cache
from app.adapters.memory import cache as memory_cache
from app.adapters.memory.cache import MemoryCache
from app.adapters.redis.cache import RedisCache
from app.adapters.redis.cluster import RedisClusterCache
from app.adapters.redis.sentinel_cache import RedisSentinelCache
from app.domain import slug as slugs
from app.domain import target
from app.domain.link import Resolution, Slug
from app.ports import LinkCache
from app.wire import MAX_VERSION
from tests.budgets import examples
from tests.contract.cache_entries import A, B, cached, live
from tests.contract.guards import wide_cache_guards

_fresh = itertools.count()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.services),
        pytest.param("guarded redis", marks=pytest.mark.services),
        pytest.param("redis cluster", marks=pytest.mark.services),
        pytest.param("guarded redis cluster", marks=pytest.mark.services),
        pytest.param("redis of sentinels", marks=pytest.mark.services),
    ]
)
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[LinkCache]:
    if request.param == "memory":
        memory = MemoryCache()
        yield memory
        await memory.aclose()
    elif "cluster" in request.param:
        cluster = request.getfixturevalue("redis_cluster")
        cluster.flush()
        is_guarded = request.param.startswith("guarded")
        over_nodes = RedisClusterCache(
            cluster.url,
            timeout_s=20,
            connect_timeout_s=20,
            guarded=lambda _, node: guarded_cache(node, wide_cache_guards()) if is_guarded else node,
        )
        yield over_nodes
        await over_nodes.aclose()
    elif "sentinels" in request.param:
        sentinels = request.getfixturevalue("redis_sentinels")
        sentinels.primary.flush()
        followed = RedisSentinelCache(sentinels.url, timeout_s=20, connect_timeout_s=20)
        yield followed
        await followed.aclose()
    else:
        redis_server = request.getfixturevalue("redis_server")
        redis_server.flush()
        over_redis = RedisCache(redis_server.url, timeout_s=20, connect_timeout_s=20)
        yield over_redis if request.param == "redis" else guarded_cache(over_redis, wide_cache_guards())
        await over_redis.aclose()


# --- every cache -----------------------------------------------------------------------


async def test_miss_is_none(cache: LinkCache) -> None:
    assert await cached(cache, A) is None


@pytest.mark.parametrize(
    "resolution",
    [
        live(A, 1),
        Resolution(A, 7),
        Resolution.absent(A),
        Resolution(A, MAX_VERSION, "https://x.example/"),
        Resolution(Slug("s" * slugs.MAX_LENGTH), 1, "https://x.example/" + "x" * (target.MAX_LENGTH - 18)),
        Resolution(Slug("1"), 1, "https://x.example/"),
    ],
    ids=["live", "gone", "absent", "highest", "longest", "shortest"],
)
async def test_put_resolution_is_read_back_in_full(cache: LinkCache, resolution: Resolution) -> None:
    assert await cache.put([resolution]) == 1

    assert await cached(cache, resolution.slug) == resolution


@pytest.mark.parametrize("later", [True, False])
async def test_link_of_another_epoch_replaces_any_version(cache: LinkCache, later: bool) -> None:
    """The store went back: versions of the two histories say nothing about each other."""
    lost, true = replace(live(A, 5), epoch=7 if later else 0), replace(live(A, 2), epoch=0 if later else 7)
    await cache.put([lost])

    assert await cache.put([true]) == 1
    assert await cached(cache, A) == true
    assert await cache.put([replace(live(A, 1), epoch=true.epoch)]) == 0
    assert await cached(cache, A) == true


async def test_absent_slug_replaces_no_link_of_another_epoch(cache: LinkCache) -> None:
    """It has no epoch of its own; a reader ignores a link of another one."""
    held = replace(live(A, 2), epoch=7)
    await cache.put([held])

    assert await cache.put([Resolution.absent(A)]) == 0
    assert await cached(cache, A) == held


async def test_scan_returns_every_slug(cache: LinkCache) -> None:
    """Absent slugs included; some may be returned twice."""
    slugs = {Slug(f"slug-{n}") for n in range(1200)}
    await cache.put([live(slug, 1) for slug in slugs] + [Resolution.absent(A)])

    scanned: list[Slug] = []
    cursor = 0
    while True:
        page = await cache.scan(cursor)
        scanned += page.slugs
        cursor = page.next_cursor
        assert page.total == 1201
        if cursor == 0:
            break

    assert set(scanned) == slugs | {A}


async def test_forgotten_slug_accepts_any_version(cache: LinkCache) -> None:
    await cache.put([live(A, 9), live(B, 9)])

    await cache.forget([A, Slug("unknown")])

    assert await cached(cache, A) is None
    assert await cache.put([live(A, 1)]) == 1
    assert await cached(cache, B) == live(B, 9)


@pytest.mark.parametrize("held", [live(A, 3), Resolution(A, 3)], ids=["live", "gone"])
async def test_older_and_equal_versions_lose(cache: LinkCache, held: Resolution) -> None:
    await cache.put([held])

    assert await cache.put([live(A, 2)]) == 0
    assert await cache.put([Resolution(A, 3, "https://other.example/")]) == 0
    assert await cache.put([Resolution.absent(A)]) == 0
    assert await cached(cache, A) == held


async def test_newer_versions_win(cache: LinkCache) -> None:
    """Tombstones included: a link may be enabled again."""
    for resolution in [live(A, 1), Resolution(A, 2), live(A, 3)]:
        assert await cache.put([resolution]) == 1
        assert await cached(cache, A) == resolution


async def test_absent_loses_to_any_real_link(cache: LinkCache) -> None:
    """Absent slugs have version 0."""
    assert await cache.put([Resolution.absent(A)]) == 1
    assert await cache.put([Resolution.absent(A)]) == 0

    assert await cache.put([live(A, 1)]) == 1
    assert await cached(cache, A) == live(A, 1)


async def test_put_counts_what_it_wrote(cache: LinkCache) -> None:
    """Over several slugs and repetitions in one call."""
    await cache.put([live(B, 5)])

    assert await cache.put([live(A, 1), live(B, 4), live(A, 3), live(A, 2), live(B, 6)]) == 3
    assert (await cached(cache, A), await cached(cache, B)) == (live(A, 3), live(B, 6))


async def test_put_of_nothing(cache: LinkCache) -> None:
    assert await cache.put([]) == 0


async def test_put_of_more_than_one_pipeline(cache: LinkCache) -> None:
    """Events can carry a thousand slugs each."""
    many = [live(Slug(f"slug{n}"), 1) for n in range(1203)]

    assert await cache.put(many) == len(many)
    assert await cached(cache, many[-1].slug) == many[-1]


async def test_concurrent_puts_end_at_the_newest_version(cache: LinkCache) -> None:
    """The compare-and-set is atomic."""
    versions = list(range(1, 201))
    random.Random(5).shuffle(versions)

    written = await asyncio.gather(*(cache.put([live(A, v), live(B, 201 - v)]) for v in versions))

    assert (await cached(cache, A), await cached(cache, B)) == (live(A, 200), live(B, 200))
    assert sum(written) >= 2


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(st.integers(0, 12), min_size=1, max_size=12))
async def test_any_put_order_ends_at_the_highest_version(cache: LinkCache, versions: list[int]) -> None:
    """An older version never replaces a newer one."""
    slug = Slug(f"slug{next(_fresh)}")

    for version in versions:
        await cache.put([live(slug, version) if version else Resolution.absent(slug)])

    found = await cached(cache, slug)
    assert found is not None
    assert found.version == max(versions)


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
    assert await cached(cache, Slug("absent")) is not None
    clock.now += 10.02
    assert await cached(cache, Slug("absent")) is None
    clock.now += 600
    assert await cached(cache, Slug("gone")) is not None
    assert await cached(cache, A) is not None
    clock.now += 24 * 3600 * 1.1
    assert await cached(cache, Slug("gone")) is None
    assert await cached(cache, A) is None


async def test_memory_evicts_the_entry_that_expires_soonest() -> None:
    """Expired entries first, then absent slugs, then the oldest links."""
    clock = Clock()
    cache = MemoryCache(max_entries=3, clock=clock, random=lambda: 0.5)
    await cache.put([live(A, 1)])
    clock.now += 1
    await cache.put([live(B, 1)])
    for n in range(100):
        await cache.put([Resolution.absent(Slug(f"scan{n}"))])
    assert len(cache) == 3
    assert await cached(cache, A) is not None
    assert await cached(cache, B) is not None

    clock.now += 1
    await cache.put([live(Slug("c"), 1), live(Slug("d"), 1)])
    assert await cached(cache, A) is None
    assert await cached(cache, B) is not None
    assert len(cache) == 3


async def test_memory_stays_bounded_over_many_changes() -> None:
    """A link that changes often costs one entry."""
    cache = MemoryCache(max_entries=10)
    for version in range(1, 1000):
        await cache.put([live(A, version)])

    assert len(cache) == 1
    assert len(cache._expiries) <= 21


async def test_long_targets_evict_each_other_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_cache, "MAX_LONG", 2)
    cache = MemoryCache()
    await cache.put([live(A, 1)])
    long = [Slug(f"long-{number}") for number in range(5)]

    for slug in long:
        await cache.put([Resolution(slug, 1, "https://example.com/" + "a" * 2029)])

    assert list(await cache.get_many([A, *long])) == [A, *long[3:]]
