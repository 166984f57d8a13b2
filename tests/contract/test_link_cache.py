"""`LinkCache`: what every cache must do, over each of them; then the one in this process."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.adapters.cache_memory import MemoryCache
from app.adapters.cache_redis import RedisCache
from app.adapters.cache_redis_cluster import RedisClusterCache
from app.adapters.guarded import GuardedCache
from app.domain.link import Resolution, Slug
from app.ports import LinkCache
from app.wire import MAX_VERSION
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
            timeout_s=2,
            connect_timeout_s=2,
            guarded=lambda _, node: GuardedCache(node, wide_cache_guards()) if is_guarded else node,
        )
        yield over_nodes
        await over_nodes.aclose()
    else:
        redis_server = request.getfixturevalue("redis_server")
        redis_server.flush()
        over_redis = RedisCache(redis_server.url, timeout_s=2)
        yield over_redis if request.param == "redis" else GuardedCache(over_redis, wide_cache_guards())
        await over_redis.aclose()


# --- every cache -----------------------------------------------------------------------


async def test_a_miss_is_none(cache: LinkCache) -> None:
    """Return what is cached; None on a miss."""
    assert await cached(cache, A) is None


@pytest.mark.parametrize(
    "resolution",
    [live(A, 1), Resolution(A, 7), Resolution.absent(A), Resolution(A, MAX_VERSION, "https://x.example/")],
    ids=["live", "gone", "absent", "highest"],
)
async def test_what_was_put_is_read_field_by_field(cache: LinkCache, resolution: Resolution) -> None:
    """Return what is cached."""
    assert await cache.put([resolution]) == 1

    assert await cached(cache, A) == resolution


async def test_whoever_looks_through_meets_every_slug(cache: LinkCache) -> None:
    """Absent ones included; some of them twice."""
    slugs = {Slug(f"slug-{n}") for n in range(1200)}
    await cache.put([live(slug, 1) for slug in slugs] + [Resolution.absent(A)])

    met: list[Slug] = []
    cursor = 0
    while True:
        page = await cache.scan(cursor)
        met += page.slugs
        cursor = page.next_cursor
        assert page.total == 1201
        if cursor == 0:
            break

    assert set(met) == slugs | {A}


async def test_what_is_forgotten_can_be_written_at_any_version(cache: LinkCache) -> None:
    await cache.put([live(A, 9), live(B, 9)])

    await cache.forget([A, Slug("unknown")])

    assert await cached(cache, A) is None
    assert await cache.put([live(A, 1)]) == 1
    assert await cached(cache, B) == live(B, 9)


@pytest.mark.parametrize("held", [live(A, 3), Resolution(A, 3)], ids=["live", "gone"])
async def test_older_and_equal_versions_lose(cache: LinkCache, held: Resolution) -> None:
    """Write each resolution unless the cache holds the same or a newer version of it."""
    await cache.put([held])

    assert await cache.put([live(A, 2)]) == 0
    assert await cache.put([Resolution(A, 3, "https://other.example/")]) == 0
    assert await cache.put([Resolution.absent(A)]) == 0
    assert await cached(cache, A) == held


async def test_newer_versions_win(cache: LinkCache) -> None:
    """Tombstones are no exception: a link may be enabled again."""
    for resolution in [live(A, 1), Resolution(A, 2), live(A, 3)]:
        assert await cache.put([resolution]) == 1
        assert await cached(cache, A) == resolution


async def test_absent_loses_to_any_real_link(cache: LinkCache) -> None:
    """Absent ones (version 0) lose to any real link."""
    assert await cache.put([Resolution.absent(A)]) == 1
    assert await cache.put([Resolution.absent(A)]) == 0

    assert await cache.put([live(A, 1)]) == 1
    assert await cached(cache, A) == live(A, 1)


async def test_put_counts_what_it_wrote(cache: LinkCache) -> None:
    """Returns how many were written, over many slugs and repetitions in one call."""
    await cache.put([live(B, 5)])

    assert await cache.put([live(A, 1), live(B, 4), live(A, 3), live(A, 2), live(B, 6)]) == 3
    assert (await cached(cache, A), await cached(cache, B)) == (live(A, 3), live(B, 6))


async def test_put_of_nothing(cache: LinkCache) -> None:
    assert await cache.put([]) == 0


async def test_put_of_more_than_a_pipeline(cache: LinkCache) -> None:
    """Events can carry a thousand slugs each."""
    many = [live(Slug(f"slug{n}"), 1) for n in range(1203)]

    assert await cache.put(many) == len(many)
    assert await cached(cache, many[-1].slug) == many[-1]


async def test_concurrent_puts_end_at_the_newest_version(cache: LinkCache) -> None:
    """The compare and the set are one step, whoever else writes."""
    versions = list(range(1, 201))
    random.Random(5).shuffle(versions)

    written = await asyncio.gather(*(cache.put([live(A, v), live(B, 201 - v)]) for v in versions))

    assert (await cached(cache, A), await cached(cache, B)) == (live(A, 200), live(B, 200))
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
    assert await cached(cache, A) is not None
    assert await cached(cache, B) is not None

    clock.now += 1
    await cache.put([live(Slug("c"), 1), live(Slug("d"), 1)])
    assert await cached(cache, A) is None
    assert await cached(cache, B) is not None
    assert len(cache) == 3


async def test_memory_does_not_grow_with_changes() -> None:
    """A link that changes for ever costs one entry."""
    cache = MemoryCache(max_entries=10)
    for version in range(1, 1000):
        await cache.put([live(A, version)])

    assert len(cache) == 1
    assert len(cache._ends) <= 21
