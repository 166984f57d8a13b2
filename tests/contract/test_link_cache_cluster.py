"""What the cache in a Redis Cluster promises beyond the contract: lost shards, and slots that move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import pytest
from redis.crc import key_slot

from app.adapters.cache_redis_cluster import RedisClusterCache
from app.adapters.guarded import GuardedCache, Guards
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.ports import LinkCache
from app.wire import cache_key
from tests.contract.cache_entries import cached, live
from tests.contract.guards import wide_cache_guards
from tests.servers.redis_cluster import PrivateCluster

pytestmark = pytest.mark.services


@pytest.fixture
def cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster() as cluster:
        yield cluster


@pytest.fixture
async def cache(cluster: PrivateCluster) -> AsyncIterator[RedisClusterCache]:
    cache = RedisClusterCache(cluster.url, timeout_s=1, connect_timeout_s=1)
    yield cache
    await cache.aclose()


def slugs_of(cluster: PrivateCluster, primary: int, number: int = 1) -> list[Slug]:
    """Return slugs that *primary* serves in the beginning."""
    slots = range(cluster.first_slot(primary), cluster.first_slot(primary + 1))
    found = (Slug(f"slug-{n}") for n in range(10_000))
    return [slug for slug in found if slot(slug) in slots][:number]


def guarded(cluster: PrivateCluster, guards: Guards) -> RedisClusterCache:
    return RedisClusterCache(
        cluster.url,
        timeout_s=1,
        connect_timeout_s=1,
        guarded=lambda name, node: GuardedCache(node, guards.shard(name)),
        gone=guards.forget_shard,
    )


class Observed(GuardedCache):
    """Notes in *calls* how many links each read and write is about."""

    def __init__(self, cache: LinkCache, calls: list[int]) -> None:
        super().__init__(cache, wide_cache_guards())
        self._calls = calls

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        self._calls.append(len(slugs))
        return await super().get_many(slugs)

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        self._calls.append(len(resolutions))
        return await super().put(resolutions)


def slot(slug: Slug) -> int:
    return key_slot(cache_key(slug).encode())


async def slugs_met(cache: RedisClusterCache) -> list[Slug]:
    met: list[Slug] = []
    page = await cache.scan(0)
    while True:
        met += page.slugs
        if page.next_cursor == 0:
            return met
        page = await cache.scan(page.next_cursor)


async def eventually_put(cache: RedisClusterCache, slug: Slug, version: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await cache.put([live(slug, version)])
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_every_primary_holds_its_slugs(cluster: PrivateCluster, cache: RedisClusterCache) -> None:
    await cache.put([live(Slug(f"slug-{n}"), 1) for n in range(300)])

    sizes = [node.command("DBSIZE") for node in cluster.nodes]
    assert sum(sizes) == 300  # type: ignore[arg-type]
    assert all(sizes)


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_lost_shard_takes_only_its_slugs_along(
    cluster: PrivateCluster, cache: RedisClusterCache, fault: str, lost: int
) -> None:
    """Reads of other shards never fail; writes of other shards are done though the call raises."""
    slugs = [slugs_of(cluster, n)[0] for n in range(3)]
    await cache.put([live(slug, 1) for slug in slugs])
    getattr(cluster.nodes[lost], fault)()

    for _ in range(10):
        found = await cache.get_many(slugs)
        assert found == {slug: live(slug, 1) for n, slug in enumerate(slugs) if n != lost}
        with pytest.raises(Unavailable):  # nobody else was asked
            await cache.get_many([slugs[lost]])
    with pytest.raises(Unavailable):
        await cache.put([live(slug, 2) for slug in slugs])
    with pytest.raises(Unavailable, match=str(cluster.nodes[lost].port)):
        await cache.ping()

    for n, slug in enumerate(slugs):
        if n != lost:
            assert await cached(cache, slug) == live(slug, 2)
    if fault == "pause":
        cluster.nodes[lost].resume()
        await eventually_put(cache, slugs[lost], 3)
        assert await cached(cache, slugs[lost]) == live(slugs[lost], 3)


async def test_the_breaker_of_a_lost_shard_is_its_own(cluster: PrivateCluster) -> None:
    guards = Guards()
    cache = guarded(cluster, guards)
    slugs = [slugs_of(cluster, n)[0] for n in range(3)]
    await cache.put([live(slug, 1) for slug in slugs])
    cluster.nodes[1].kill()

    for _ in range(30):
        await asyncio.gather(cached(cache, slugs[1]), return_exceptions=True)

    states = {name: guard.opened_total for name, guard in guards.snapshot().items() if "read@" in name}
    assert states == {
        f"redis.read@127.0.0.1:{node.port}": int(n == 1) for n, node in enumerate(cluster.nodes)
    }
    assert await cached(cache, slugs[0]) == live(slugs[0], 1)
    await cache.aclose()


async def test_slots_that_move_are_followed(cluster: PrivateCluster, cache: RedisClusterCache) -> None:
    """ASK while a slot moves, MOVED afterwards; nothing is lost, and versions hold all along."""
    slug, *others = slugs_of(cluster, 0, 20)
    await cache.put([live(each, 5) for each in (slug, *others)])
    source, target = cluster.nodes[:2]
    finish = cluster.move(slot(slug), source, target, [cache_key(slug)])

    assert await cached(cache, slug) == live(slug, 5)  # ASK
    assert await cache.put([live(slug, 4)]) == 0
    assert await cache.put([live(each, 6) for each in (slug, *others)]) >= 1
    assert await cached(cache, slug) == live(slug, 6)
    assert target.command("DBSIZE") == 1

    finish()
    assert await cached(cache, slug) == live(slug, 6)  # MOVED
    assert await cache.put([live(each, 7) for each in (slug, *others)]) >= 1
    await cache.forget([slug])
    assert await cached(cache, slug) is None
    assert [await cached(cache, each) for each in others] == [live(each, 7) for each in others]
    assert set(await slugs_met(cache)) == set(others)


@pytest.mark.parametrize("how", ["ASK", "MOVED"])
@pytest.mark.parametrize(("what", "expected"), [("get_many", [40, 2]), ("put", [40, 2, 38])])
async def test_only_what_was_redirected_is_followed(
    cluster: PrivateCluster, what: str, expected: list[int], how: str
) -> None:
    """All of it at once. Writes of the others are done again, at once too; reads are not."""
    calls: list[int] = []
    cache = RedisClusterCache(
        cluster.url, timeout_s=1, connect_timeout_s=1, guarded=lambda _, node: Observed(node, calls)
    )
    slugs = slugs_of(cluster, 0, 40)
    await cache.put([live(slug, 1) for slug in slugs])
    for slug in slugs[:2]:
        finish = cluster.move(slot(slug), *cluster.nodes[:2], [cache_key(slug)])
        if how == "MOVED":
            finish()

    calls.clear()
    if what == "get_many":
        assert await cache.get_many(slugs) == {slug: live(slug, 1) for slug in slugs}
    else:
        await cache.put([live(slug, 2) for slug in slugs])
    assert calls == expected

    version = 1 if what == "get_many" else 2
    assert [await cached(cache, slug) for slug in slugs] == [live(slug, version) for slug in slugs]
    await cache.aclose()


async def test_a_redirection_that_leads_nowhere_costs_only_what_was_redirected(
    cluster: PrivateCluster, cache: RedisClusterCache
) -> None:
    lost, *others = slugs_of(cluster, 0, 20)
    await cache.put([live(slug, 1) for slug in (lost, *others)])
    source, target = cluster.nodes[:2]
    cluster.move(slot(lost), source, target, [cache_key(lost)])
    target.pause()

    assert await cache.get_many([lost, *others]) == {slug: live(slug, 1) for slug in others}
    with pytest.raises(Unavailable):
        await cache.get_many([lost])
    with pytest.raises(Unavailable):
        await cache.put([live(slug, 2) for slug in (lost, *others)])
    assert await cache.get_many(others) == {slug: live(slug, 2) for slug in others}


async def test_nodes_that_send_callers_around(cluster: PrivateCluster, cache: RedisClusterCache) -> None:
    """Neither a miss of the others, nor a write that is taken for done."""
    lost, *others = slugs_of(cluster, 0, 20)
    await cache.put([live(slug, 1) for slug in others])
    source, target = cluster.nodes[:2]
    target_id = target.command("CLUSTER", "MYID")
    assert isinstance(target_id, bytes)
    source.command("CLUSTER", "SETSLOT", slot(lost), "NODE", target_id)

    assert await cache.get_many([lost, *others]) == {slug: live(slug, 1) for slug in others}
    with pytest.raises(Unavailable, match="around"):
        await cache.put([live(slug, 2) for slug in (lost, *others)])
    assert await cache.get_many(others) == {slug: live(slug, 2) for slug in others}


async def test_a_scan_begins_again_when_the_topology_changes(
    cluster: PrivateCluster, cache: RedisClusterCache
) -> None:
    """What has moved from a primary that was not met yet to one that was is met all the same."""
    slugs = {Slug(f"slug-{n}") for n in range(3000)}
    await cache.put([live(slug, 1) for slug in slugs])
    by_port = sorted(cluster.nodes, key=lambda node: node.port)
    late = slugs_of(cluster, cluster.nodes.index(by_port[2]))[0]

    page = await cache.scan(0)
    met = set(page.slugs)
    topology = cache._topology
    cluster.move(slot(late), by_port[2], by_port[0], [cache_key(late)])()
    async with asyncio.timeout(20):
        while cache._topology == topology:
            await cached(cache, late)
            await asyncio.sleep(0.05)
    while page.next_cursor:
        page = await cache.scan(page.next_cursor)
        met |= set(page.slugs)

    assert met == slugs


async def test_scripts_that_one_node_forgot(cluster: PrivateCluster, cache: RedisClusterCache) -> None:
    """NOSCRIPT is the matter of one node."""
    slugs = [slugs_of(cluster, n)[0] for n in range(3)]
    await cache.put([live(slug, 1) for slug in slugs])
    cluster.nodes[1].command("SCRIPT", "FLUSH")

    assert await cache.put([live(slug, 2) for slug in slugs]) == 3


async def test_a_primary_that_dies_is_replaced_by_its_replica() -> None:
    """The client finds the new primary by itself and forgets the old, its breakers too; versions hold."""
    with PrivateCluster(replicas=1, node_timeout_ms=1000) as cluster:
        guards = Guards()
        cache = guarded(cluster, guards)
        slugs = [slugs_of(cluster, n)[0] for n in range(3)]
        await cache.put([live(slug, 2) for slug in slugs])
        cluster.nodes[0].command("WAIT", 1, 5000)
        cluster.nodes[0].kill()

        await eventually_put(cache, slugs[0], 1)

        assert await cached(cache, slugs[0]) == live(slugs[0], 2)
        await cache.ping()
        shown = {name for name in guards.snapshot() if "@" in name}
        assert shown == {
            f"redis.{way}@127.0.0.1:{cluster.nodes[n].port}" for way in ("read", "write") for n in (1, 2, 3)
        }
        await cache.aclose()


async def test_without_any_node() -> None:
    cache = RedisClusterCache("redis+cluster://:hush@127.0.0.1:1", timeout_s=0.2)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no node of the cluster answers"):
            await cached(cache, Slug("a"))
        with pytest.raises(Unavailable):
            await cache.ping()
    await cache.aclose()
