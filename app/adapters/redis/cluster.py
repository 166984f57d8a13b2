"""
`LinkCache` in a Redis Cluster: every primary is a cache of its own, with guards of its own.

So a lost shard costs its own slugs a cache miss, and no other. redis-py's cluster client does not
give that: one broken connection makes all callers wait for the topology and drops the connections
to every node, and a pipeline fails as a whole.
"""

from __future__ import annotations

import asyncio
import math
import random as random_module
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit
from zlib import crc32

from redis.crc import key_slot

from app.adapters.redis.cache import RedisCache, raise_first
from app.adapters.redis.node import Address, ClusterNode, Moved, SlotMoved, Topology
from app.adapters.redis.recent_writes import RecentWrites
from app.concurrency.stopping import stop
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.ports import CachePage, LinkCache
from app.resilience.deadline import CACHE_CONNECT_S, CACHE_S
from app.wire import cache_key

_SLOTS = 16_384
# MOVED and ASK replies followed in a row for one key. A slot that migrates meanwhile may need two.
_MAX_REDIRECTS = 3
# Between two refreshes of the topology, at least.
_REFRESH_S = 0.5
# Between two of a process that makes no calls, while it has something to write again after a failover.
_LOOK_EVERY_S = 1.0
# Written again in one call, which is bounded as any other.
_AGAIN_AT_ONCE = 500

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _Shard:
    node: ClusterNode
    cache: LinkCache  # the node behind its guards


class RedisClusterCache:
    """
    Routes each slug to the primary of its slot; each node is bounded as `RedisCache` is.

    The first call loads the topology from any node that answers. It is refreshed at most every half
    second: after a MOVED or ASK reply, an unavailable node, or a slot that no node serves; and each second
    for a minute after a write. Callers wait for a refresh only while no topology is known, and for
    `timeout_s` at most.

    The `RecentWrites` of this process whose slots another primary serves now, after a failover, are written
    again there; versions make that harmless.
    """

    def __init__(
        self,
        url: str,
        *,
        guarded: Callable[[str, LinkCache], LinkCache] = lambda _name, cache: cache,
        on_removed: Callable[[str], None] = lambda _name: None,
        timeout_s: float = CACHE_S,
        connect_timeout_s: float = CACHE_CONNECT_S,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Prepare; the first call connects.

        Args:
            url: `redis+cluster://` or `rediss+cluster://` with any node as the seed: it is asked for
                the topology while no other node is known or answers. Credentials and options hold
                for all nodes.
            guarded: wraps the node of that name in its guards.
            on_removed: called with the name of a node that serves no slot any more.
            timeout_s: see `RedisCache`, as for the rest; for each node.

        Raises:
            SettingsError: see `RedisCache`.
        """
        parts = urlsplit(url)
        self._url = parts._replace(scheme=parts.scheme.removesuffix("+cluster"))
        RedisCache(self._url.geturl())  # rejects a bad URL now, not at the first call
        self._seed = Address(parts.hostname or "127.0.0.1", parts.port or 6379)
        self._guarded = guarded
        self._on_removed = on_removed
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._random = random
        self._owners: dict[int, Address] = {}
        self._topology = Topology(is_ok=False, ranges=())
        self._is_outdated = True
        self._shards: dict[Address, _Shard] = {}
        self._importing: dict[Address, _Shard] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -math.inf
        self._written = RecentWrites()
        self._looking: asyncio.Task[None] | None = None
        self._owes_writes = False

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """
        Slugs of a lost shard, and of a redirect loop, are misses.

        Raises Unavailable only if no shard answers.
        """
        results = await self._fan_out(
            [(slug, slug) for slug in slugs], lambda cache, some: cache.get_many(some)
        )
        parts = [result for result in results if not isinstance(result, Unavailable)]
        if not parts and slugs:
            raise_first(results)
        return {slug: held for part in parts for slug, held in part.items()}

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """
        If it raises, the shards that answered have written theirs.

        Writes that a node made just before it answered MOVED for the rest are not counted.
        """
        await self._await_topology()
        self._keep(resolutions)
        by_slug = [(resolution.slug, resolution) for resolution in resolutions]
        results = await self._fan_out(by_slug, lambda cache, some: cache.put(some))
        raise_first(results)
        return sum(result for result in results if not isinstance(result, Unavailable))

    async def forget(self, slugs: Sequence[Slug]) -> None:
        self._written.forget(slugs)
        raise_first(
            await self._fan_out([(slug, slug) for slug in slugs], lambda cache, some: cache.forget(some))
        )

    async def scan(self, cursor: int) -> CachePage:
        """
        One primary after the other.

        Starts over if the topology has changed. Keys of slots that are migrating meanwhile may be
        missed.
        """
        await self._await_topology()
        if cursor == 0:
            self._refresh()
        primaries = sorted(set(self._owners.values()))
        # A node's cursor is valid on that node only, so ours also holds the number of the node, and
        # the topology in which it has that number.
        inner, which, topology = cursor >> 48, (cursor >> 32) & 0xFFFF, cursor & 0xFFFFFFFF
        present = crc32(repr(self._topology.ranges).encode())
        if topology != present:
            inner = which = 0
        shards = [self._shard(address) for address in primaries]
        page = await shards[which].cache.scan(inner)
        others = [shard.node.size() for index, shard in enumerate(shards) if index != which]
        total = page.total + sum(await asyncio.gather(*others))
        if page.next_cursor == 0:
            which += 1
        is_over = which == len(primaries)
        next_cursor = 0 if is_over else page.next_cursor << 48 | which << 32 | present
        return CachePage(page.slugs, next_cursor, total)

    async def ping(self) -> None:
        """Every primary has to answer."""
        await self._await_topology()
        await asyncio.gather(*map(self._ping, set(self._owners.values())))

    async def aclose(self) -> None:
        running = [task for task in (self._looking, self._refreshing) if task is not None]
        await stop(running, "the refresh of the cluster's topology")
        await _close([*self._shards.values(), *self._importing.values()])

    async def _ping(self, address: Address) -> None:
        try:
            await self._shard(address).cache.ping()
        except Unavailable as error:
            self._refresh()
            raise Unavailable("redis", f"{address}: {error.reason}") from error

    # --- routing -----------------------------------------------------------------------

    async def _fan_out(
        self,
        items: Iterable[tuple[Slug, Item]],
        work: Callable[[LinkCache, Sequence[Item]], Awaitable[T]],
    ) -> list[T | Unavailable]:
        """
        Run *work* on all shards concurrently, each with its part of *items*.

        Returns the results, each for a part of *items*, and an `Unavailable` for each part without one.
        """
        await self._await_topology()
        groups: dict[LinkCache, list[tuple[Slug, Item]]] = {}
        unserved: list[T | Unavailable] = []
        for slug, item in items:
            try:
                groups.setdefault(self._shard(self._owner(slug)).cache, []).append((slug, item))
            except Unavailable as error:
                unserved = [error]
        return [*await self._run_all(groups, work, _MAX_REDIRECTS), *unserved]

    async def _run_all(
        self,
        groups: Mapping[LinkCache, Sequence[tuple[Slug, Item]]],
        work: Callable[[LinkCache, Sequence[Item]], Awaitable[T]],
        redirects: int,
    ) -> list[T | Unavailable]:
        running = (self._run(cache, some, work, redirects) for cache, some in groups.items())
        return [result for results in await asyncio.gather(*running) for result in results]

    async def _run(
        self,
        cache: LinkCache,
        some: Sequence[tuple[Slug, Item]],
        work: Callable[[LinkCache, Sequence[Item]], Awaitable[T]],
        redirects: int,
    ) -> list[T | Unavailable]:
        """Run *work* on *cache*, and what is served elsewhere on that node, after *redirects* at most."""
        try:
            return [await work(cache, [item for _, item in some])]
        except Unavailable as error:
            self._refresh()
            return [error]
        except SlotMoved as error:
            reply = error
        rest: list[tuple[Slug, Item]] = []
        groups: dict[LinkCache, list[tuple[Slug, Item]]] = {}
        for slug, item in some:
            moved = reply.moved.get(cache_key(slug))
            group = rest if moved is None else groups.setdefault(self._follow(moved), [])
            group.append((slug, item))
        if redirects:
            results = await self._run_all(groups, work, redirects - 1)
        else:
            results = [Unavailable("redis", f"redirect loop: {_MAX_REDIRECTS} MOVED or ASK replies in a row")]
        if rest and reply.rest is not None:
            results.append(reply.rest)
        elif rest:
            # It shrinks each time, so this ends. All work is idempotent: repeating a part is safe.
            results += await self._run(cache, rest, work, redirects)
        return results

    def _owner(self, slug: Slug) -> Address:
        owner = self._owner_known(slug)
        if owner is None:
            self._refresh()
            raise Unavailable("redis", "no node serves the slot")
        return owner

    def _owner_known(self, slug: Slug) -> Address | None:
        return self._owners.get(key_slot(cache_key(slug).encode()))

    def _follow(self, moved: Moved) -> LinkCache:
        if moved.is_ask:
            return self._shard(moved.address, is_importing=True).cache
        self._owners[moved.slot] = moved.address
        self._is_outdated = True
        self._refresh()
        return self._shard(moved.address).cache

    def _shard(self, address: Address, *, is_importing: bool = False) -> _Shard:
        shards = self._importing if is_importing else self._shards
        if address not in shards:
            credentials, at, _ = self._url.netloc.rpartition("@")
            url = self._url._replace(netloc=f"{credentials}{at}{address}").geturl()
            node = ClusterNode(
                url,
                address,
                is_importing=is_importing,
                timeout_s=self._timeout_s,
                connect_timeout_s=self._connect_timeout_s,
                random=self._random,
            )
            shards[address] = _Shard(node, self._guarded(str(address), node))
        return shards[address]

    # --- topology ----------------------------------------------------------------------

    async def _await_topology(self) -> None:
        """Return once a topology is known; wait only for a refresh that is running."""
        if self._owners:
            return
        self._refresh()
        if self._refreshing is not None and self._pause_s() <= 0:
            await asyncio.wait((self._refreshing,), timeout=self._timeout_s)
        if not self._owners:
            raise Unavailable("redis", "no node of the cluster answers")

    def _refresh(self) -> None:
        """Refresh the topology in the background, now or once `_REFRESH_S` is over."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._load())

    def _pause_s(self) -> float:
        return self._refreshed_at + _REFRESH_S - _now()

    async def _load(self) -> None:
        await asyncio.sleep(max(0.0, self._pause_s()))
        try:
            known = sorted(self._shards, key=lambda _address: self._random())
            best = Topology(is_ok=False, ranges=())
            for address in dict.fromkeys([*known, self._seed]):
                with suppress(Unavailable):
                    found = await self._shard(address).node.topology()
                    best = max(best, found, key=lambda each: (each.is_ok, each.served))
                if best.is_ok and best.served == _SLOTS:
                    break
            if best.ranges:
                await self._adopt(best)
            if self._owes_writes:
                await self._write_again()
        finally:
            self._refreshed_at = _now()
            self._refreshing = None

    async def _adopt(self, topology: Topology) -> None:
        primaries = {each.address for each in topology.ranges}
        removed: list[_Shard] = []
        if self._is_outdated or topology.ranges != self._topology.ranges:
            owners: dict[int, Address] = {}
            for first, last, address in topology.ranges:
                owners.update(dict.fromkeys(range(first, last + 1), address))
            self._owners, self._topology, self._is_outdated = owners, topology, False
            self._owes_writes = True
            # Slots that still migrate get new ones.
            removed += self._importing.values()
            self._importing = {}
        for address in set(self._shards) - primaries:
            removed.append(self._shards.pop(address))
            self._on_removed(str(address))
        await _close(removed)

    # --- failover ----------------------------------------------------------------------

    def _keep(self, resolutions: Sequence[Resolution]) -> None:
        self._written.keep(resolutions, _now(), self._owner_known)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Refresh the topology while a failover may lose writes: no call need meet it."""
        while self._written.expire(_now()):
            await asyncio.sleep(_LOOK_EVERY_S)
            self._refresh()

    async def _write_again(self) -> None:
        """Write what other primaries took, in parts; what fails is tried again after the next refresh."""

        async def write(cache: LinkCache, some: Sequence[Resolution]) -> None:
            await cache.put(some)
            self._written.written(some, self._owner_known)

        lacking = self._written.elsewhere(_now(), self._owner_known)
        results: list[Unavailable | None] = []
        for start in range(0, len(lacking), _AGAIN_AT_ONCE):
            some = lacking[start : start + _AGAIN_AT_ONCE]
            results += await self._fan_out([(resolution.slug, resolution) for resolution in some], write)
        self._owes_writes = any(isinstance(result, Unavailable) for result in results)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _close(shards: Sequence[_Shard]) -> None:
    await asyncio.gather(*(shard.cache.aclose() for shard in shards), return_exceptions=True)
