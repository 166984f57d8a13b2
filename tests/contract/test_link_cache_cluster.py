"""`LinkCache` in a Redis Cluster beyond the contract: lost shards, and slots that move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from redis.crc import key_slot

from app.adapters.guarded import guarded_cache
from app.adapters.guards import DependencyGuards
from app.adapters.redis.cluster import RedisClusterCache
from app.domain.errors import Unavailable
from app.domain.link import Slug
from app.ports import LinkCache
from app.ports.wrapped import Method, methods_of, unchanged, wrapped
from app.wire import cache_key, decode_resolution
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
    """Return slugs that *primary* serves at the start."""
    slots = range(cluster.first_slot(primary), cluster.first_slot(primary + 1))
    found = (Slug(f"slug-{n}") for n in range(10_000))
    return [slug for slug in found if slot(slug) in slots][:number]


def guarded(cluster: PrivateCluster, guards: DependencyGuards) -> RedisClusterCache:
    return RedisClusterCache(
        cluster.url,
        timeout_s=1,
        connect_timeout_s=1,
        guarded=lambda name, node: guarded_cache(node, guards.shard(name)),
        on_removed=guards.forget_shard,
    )


def observed(cache: LinkCache, calls: list[int]) -> LinkCache:
    """Return *cache* guarded; *calls* records how many links each read and write has."""

    def noted(method: Method) -> Method:
        async def call(links: Sequence[Any]) -> Any:
            calls.append(len(links))
            return await method(links)

        return call

    table = dict.fromkeys(methods_of(LinkCache).values(), unchanged)
    table |= {LinkCache.get_many: noted, LinkCache.put: noted}
    return wrapped(LinkCache, guarded_cache(cache, wide_cache_guards()), table)


def slot(slug: Slug) -> int:
    return key_slot(cache_key(slug).encode())


async def scanned(cache: RedisClusterCache) -> list[Slug]:
    slugs: list[Slug] = []
    page = await cache.scan(0)
    while True:
        slugs += page.slugs
        if page.next_cursor == 0:
            return slugs
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


# A silent shard takes its whole deadline each time: one of the three stands for all.
@pytest.mark.parametrize(("lost", "fault"), [(0, "kill"), (1, "kill"), (2, "kill"), (1, "pause")])
async def test_lost_shard_affects_only_its_slugs(
    cluster: PrivateCluster, cache: RedisClusterCache, lost: int, fault: str
) -> None:
    """Reads of other shards succeed; writes to other shards are done although the call raises."""
    slugs = [slugs_of(cluster, n)[0] for n in range(3)]
    await cache.put([live(slug, 1) for slug in slugs])
    getattr(cluster.nodes[lost], fault)()

    for _ in range(4):
        found = await cache.get_many(slugs)
        assert found == {slug: live(slug, 1) for n, slug in enumerate(slugs) if n != lost}
        with pytest.raises(Unavailable):  # the other shards have no part in this call
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


async def test_each_shard_has_its_own_breaker(cluster: PrivateCluster) -> None:
    guards = DependencyGuards()
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


async def test_moving_slots_are_followed(cluster: PrivateCluster, cache: RedisClusterCache) -> None:
    """ASK while a slot moves, MOVED afterwards; no entry is lost, and versions are compared throughout."""
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
    assert set(await scanned(cache)) == set(others)


@pytest.mark.parametrize("how", ["ASK", "MOVED"])
@pytest.mark.parametrize(("what", "expected"), [("get_many", [40, 2]), ("put", [40, 2, 38])])
async def test_only_redirected_slugs_are_sent_again(
    cluster: PrivateCluster, what: str, expected: list[int], how: str
) -> None:
    """In one batch. Writes of the rest are repeated, in one batch too; reads are not."""
    calls: list[int] = []
    cache = RedisClusterCache(
        cluster.url, timeout_s=20, connect_timeout_s=20, guarded=lambda _, node: observed(node, calls)
    )
    slugs = slugs_of(cluster, 0, 40)
    await cache.put([live(slug, 1) for slug in slugs])
    for slug in slugs[:2]:
        finish = cluster.move(slot(slug), cluster.nodes[0], cluster.nodes[1], [cache_key(slug)])
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


async def test_ask_to_lost_node_affects_redirected_slugs(
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


async def test_redirect_loop_is_a_failure(cluster: PrivateCluster, cache: RedisClusterCache) -> None:
    """The other slugs are still read, and no write is reported as done."""
    lost, *others = slugs_of(cluster, 0, 20)
    await cache.put([live(slug, 1) for slug in others])
    source, target = cluster.nodes[:2]
    target_id = target.command("CLUSTER", "MYID")
    assert isinstance(target_id, bytes)
    source.command("CLUSTER", "SETSLOT", slot(lost), "NODE", target_id)

    assert await cache.get_many([lost, *others]) == {slug: live(slug, 1) for slug in others}
    with pytest.raises(Unavailable, match="redirect loop"):
        await cache.put([live(slug, 2) for slug in (lost, *others)])
    assert await cache.get_many(others) == {slug: live(slug, 2) for slug in others}


async def test_scan_starts_over_when_the_topology_changes(
    cluster: PrivateCluster, cache: RedisClusterCache
) -> None:
    """A key that moved from a primary not yet scanned to a scanned one is still returned."""
    slugs = {Slug(f"slug-{n}") for n in range(3000)}
    await cache.put([live(slug, 1) for slug in slugs])
    by_port = sorted(cluster.nodes, key=lambda node: node.port)
    late = slugs_of(cluster, cluster.nodes.index(by_port[2]))[0]

    page = await cache.scan(0)
    seen = set(page.slugs)
    topology = cache._topology
    cluster.move(slot(late), by_port[2], by_port[0], [cache_key(late)])()
    async with asyncio.timeout(20):
        while cache._topology == topology:
            await cached(cache, late)
            await asyncio.sleep(0.05)
    while page.next_cursor:
        page = await cache.scan(page.next_cursor)
        seen |= set(page.slugs)

    assert seen == slugs


async def test_flushed_script_on_one_node(cluster: PrivateCluster, cache: RedisClusterCache) -> None:
    """NOSCRIPT is handled for each node."""
    slugs = [slugs_of(cluster, n)[0] for n in range(3)]
    await cache.put([live(slug, 1) for slug in slugs])
    cluster.nodes[1].command("SCRIPT", "FLUSH")

    assert await cache.put([live(slug, 2) for slug in slugs]) == 3


async def test_dead_primary_is_replaced_by_its_replica() -> None:
    """The client finds the new primary and removes the old one with its breakers; versions are compared."""
    with PrivateCluster(replicas=1, node_timeout_ms=1000) as cluster:
        guards = DependencyGuards()
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


async def test_writes_that_the_replica_lacked_are_written_again() -> None:
    """Else the link's old entry, which the replica has, would be shown for up to a day. No call is needed."""
    with PrivateCluster(replicas=1, node_timeout_ms=1000) as cluster:
        cache = RedisClusterCache(cluster.url, timeout_s=1, connect_timeout_s=1)
        (old, new), other = slugs_of(cluster, 0, 2), slugs_of(cluster, 1)[0]
        primary, replica = cluster.nodes[0], cluster.nodes[3]
        await cache.put([live(old, 1), live(other, 1)])
        primary.command("WAIT", 1, 5000)
        replica.pause()
        primary.command("CLIENT", "KILL", "TYPE", "replica")  # what it takes from now on stays with it
        assert primary.info()["connected_slaves"] == 0
        await cache.put([live(old, 2), live(new, 1)])
        primary.kill()
        replica.resume()

        async with asyncio.timeout(30):
            while replica.command("DBSIZE") != 2:
                await asyncio.sleep(0.05)
        held = replica.values(cache_key(old))[cache_key(old)]
        assert decode_resolution(old, held) == live(old, 2)
        assert await cache.get_many([old, new, other]) == {
            old: live(old, 2),
            new: live(new, 1),
            other: live(other, 1),
        }
        await cache.aclose()


async def test_cluster_without_any_node() -> None:
    cache = RedisClusterCache("redis+cluster://:hush@127.0.0.1:1", timeout_s=0.2)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no node of the cluster answers"):
            await cached(cache, Slug("a"))
        with pytest.raises(Unavailable):
            await cache.ping()
    await cache.aclose()
