"""
`LinkCache` in a Redis Cluster: every primary is a cache of its own, with guards of its own.

So a shard that is away costs its own slugs a miss, and nobody else anything. The client that
redis-py has for clusters does not give that: whoever meets a broken connection makes all callers
wait for the topology and drops the connections to every node, and a pipeline fails as a whole.
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

from app.adapters.cache_redis import RedisCache, raise_first
from app.adapters.cache_redis_node import Address, ClusterNode, Redirected, Redirection
from app.domain.errors import Unavailable
from app.domain.link import Resolution, Slug
from app.ports import CachePage, LinkCache
from app.wire import cache_key

_SLOTS = 16_384
# How often in a row a key is followed. A slot that moves while it is asked for may need two.
_MAX_REDIRECTIONS = 3
# How long nobody looks at the topology again, whatever happens.
_LOOK_AGAIN_S = 0.5

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _Shard:
    node: ClusterNode
    cache: LinkCache  # the same, guarded


class RedisClusterCache:
    """
    Routes by slot; what a shard may cost is bounded as in `RedisCache`.

    The topology is learnt from whichever node answers, by the first call, and again at most
    every half second when a node redirects, is away, or no node is known for a slot. Callers wait
    for that only as long as nothing is known at all, and for `timeout_s` at most.
    """

    def __init__(
        self,
        url: str,
        *,
        guarded: Callable[[str, LinkCache], LinkCache] = lambda _name, cache: cache,
        gone: Callable[[str], None] = lambda _name: None,
        timeout_s: float = 0.06,
        connect_timeout_s: float = 0.2,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """
        Prepare; the first call connects.

        Args:
            url: `redis+cluster://` or `rediss+cluster://` with any node, which is asked first, and
                again when no other answers. Credentials and options hold for all nodes.
            guarded: puts guards before the node of that name.
            gone: is told the name of a node that is not asked any more.
            timeout_s: see `RedisCache`, as for the rest; for each node.

        Raises:
            SettingsError: see `RedisCache`.
        """
        parts = urlsplit(url)
        self._url = parts._replace(scheme=parts.scheme.removesuffix("+cluster"))
        RedisCache(self._url.geturl())  # or it would be found out by the first call
        self._entry = Address(parts.hostname or "127.0.0.1", parts.port or 6379)
        self._guarded = guarded
        self._gone = gone
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._random = random
        self._owners: dict[int, Address] = {}
        self._topology = 0
        self._shards: dict[Address, _Shard] = {}
        self._importing: dict[Address, _Shard] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -math.inf

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """
        See `LinkCache.get_many`.

        What a shard that is away holds is missed, and what is redirected again and again; only if
        that is everything, it raises.
        """
        answers = await self._ask_each(
            [(slug, slug) for slug in slugs], lambda cache, some: cache.get_many(some)
        )
        parts = [answer for answer in answers if not isinstance(answer, Unavailable)]
        if not parts and slugs:
            raise_first(answers)
        return {slug: held for part in parts for slug, held in part.items()}

    async def put(self, resolutions: Sequence[Resolution]) -> int:
        """
        See `LinkCache.put`.

        If it raises, those of the shards that answered were written. Those that were written
        just before a slot was found to have moved are not counted.
        """
        by_slug = [(resolution.slug, resolution) for resolution in resolutions]
        answers = await self._ask_each(by_slug, lambda cache, some: cache.put(some))
        raise_first(answers)
        return sum(answer for answer in answers if not isinstance(answer, Unavailable))

    async def forget(self, slugs: Sequence[Slug]) -> None:
        """See `LinkCache.forget`."""
        raise_first(
            await self._ask_each([(slug, slug) for slug in slugs], lambda cache, some: cache.forget(some))
        )

    async def scan(self, cursor: int) -> CachePage:
        """
        See `LinkCache.scan`; one primary after the other.

        It begins again if the topology has changed. Keys of slots that are moving just then
        may be missed.
        """
        await self._known()
        if cursor == 0:
            self._look_again()
        primaries = sorted(set(self._owners.values()))
        # The cursor of a node means nothing on another: so the number of the node, and of the
        # topology in which it has that number, are parts of ours.
        inner, which, topology = cursor >> 48, (cursor >> 32) & 0xFFFF, cursor & 0xFFFFFFFF
        if topology != self._topology:
            inner = which = 0
        shards = [self._shard(address) for address in primaries]
        page = await shards[which].cache.scan(inner)
        others = [shard.node.size() for index, shard in enumerate(shards) if index != which]
        total = page.total + sum(await asyncio.gather(*others))
        if page.next_cursor == 0:
            which += 1
        is_over = which == len(primaries)
        next_cursor = 0 if is_over else page.next_cursor << 48 | which << 32 | self._topology
        return CachePage(page.slugs, next_cursor, total)

    async def ping(self) -> None:
        """See `LinkCache.ping`: every primary answers."""
        await self._known()
        await asyncio.gather(*map(self._ping, set(self._owners.values())))

    async def aclose(self) -> None:
        """See `LinkCache.aclose`."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        await _close([*self._shards.values(), *self._importing.values()])

    async def _ping(self, address: Address) -> None:
        try:
            await self._shard(address).cache.ping()
        except Unavailable as error:
            self._look_again()
            raise Unavailable("redis", f"{address}: {error.reason}") from error

    async def _ask_each(
        self,
        items: Iterable[tuple[Slug, Item]],
        work: Callable[[LinkCache, Sequence[Item]], Awaitable[T]],
    ) -> list[T | Unavailable]:
        """
        Do *work* at all shards at once, each with what it has of *items*.

        Returns what *work* gave, for some of *items* each; or why there was no answer for those.
        """
        await self._known()
        groups: dict[LinkCache, list[tuple[Slug, Item]]] = {}
        homeless: list[T | Unavailable] = []
        for slug, item in items:
            try:
                groups.setdefault(self._shard(self._owner(slug)).cache, []).append((slug, item))
            except Unavailable as error:
                homeless = [error]
        return [*await self._ask_all(groups, work, _MAX_REDIRECTIONS), *homeless]

    async def _ask_all(
        self,
        groups: Mapping[LinkCache, Sequence[tuple[Slug, Item]]],
        work: Callable[[LinkCache, Sequence[Item]], Awaitable[T]],
        redirections: int,
    ) -> list[T | Unavailable]:
        asked = (self._ask(cache, some, work, redirections) for cache, some in groups.items())
        return [answer for answers in await asyncio.gather(*asked) for answer in answers]

    async def _ask(
        self,
        cache: LinkCache,
        some: Sequence[tuple[Slug, Item]],
        work: Callable[[LinkCache, Sequence[Item]], Awaitable[T]],
        redirections: int,
    ) -> list[T | Unavailable]:
        """Do *work* at *cache*, and what it redirects where that is, after so many *redirections* at most."""
        try:
            return [await work(cache, [item for _, item in some])]
        except Unavailable as error:
            self._look_again()
            return [error]
        except Redirected as error:
            redirected = error
        others: list[tuple[Slug, Item]] = []
        groups: dict[LinkCache, list[tuple[Slug, Item]]] = {}
        for slug, item in some:
            there = redirected.elsewhere.get(cache_key(slug))
            group = others if there is None else groups.setdefault(self._follow(there), [])
            group.append((slug, item))
        if redirections:
            answers = await self._ask_all(groups, work, redirections - 1)
        else:
            answers = [Unavailable("redis", "the nodes send each other's callers around")]
        if others and redirected.answer is not None:
            answers.append(redirected.answer)
        elif others:
            # There are fewer each time. What was done already may be done again.
            answers += await self._ask(cache, others, work, redirections)
        return answers

    def _owner(self, slug: Slug) -> Address:
        owner = self._owners.get(key_slot(cache_key(slug).encode()))
        if owner is None:
            self._look_again()
            raise Unavailable("redis", "no node serves the slot")
        return owner

    def _follow(self, there: Redirection) -> LinkCache:
        if there.is_ask:
            return self._shard(there.address, is_importing=True).cache
        self._owners[there.slot] = there.address
        self._look_again()
        return self._shard(there.address).cache

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

    async def _known(self) -> None:
        """Wait until the topology is known, if it is not and somebody is being asked."""
        if self._owners:
            return
        self._look_again()
        if self._looking is not None and self._rest_s() <= 0:
            await asyncio.wait((self._looking,), timeout=self._timeout_s)
        if not self._owners:
            raise Unavailable("redis", "no node of the cluster answers")

    def _look_again(self) -> None:
        """Have the topology asked for, now or as soon as that may be done again."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    def _rest_s(self) -> float:
        return self._looked_at + _LOOK_AGAIN_S - asyncio.get_running_loop().time()

    async def _look(self) -> None:
        await asyncio.sleep(max(0.0, self._rest_s()))
        try:
            known = sorted(self._shards, key=lambda _address: self._random())
            owners: Mapping[int, Address] = {}
            for address in dict.fromkeys([*known, self._entry]):
                with suppress(Unavailable):
                    owners = max(owners, await self._shard(address).node.owners(), key=len)
                if len(owners) == _SLOTS:
                    break
            if owners:
                await self._adopt(dict(owners))
        finally:
            self._looked_at = asyncio.get_running_loop().time()
            self._looking = None

    async def _adopt(self, owners: dict[int, Address]) -> None:
        self._owners = owners
        self._topology = crc32(repr(sorted(owners.items())).encode())
        gone = []
        for address in set(self._shards) - set(owners.values()):
            gone.append(self._shards.pop(address))
            self._gone(str(address))
        # Whoever still moves slots will have new ones made.
        gone += self._importing.values()
        self._importing = {}
        await _close(gone)


async def _close(shards: Sequence[_Shard]) -> None:
    await asyncio.gather(*(shard.cache.aclose() for shard in shards), return_exceptions=True)
