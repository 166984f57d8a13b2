"""One node of a Redis Cluster, which says of some keys that they are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import AskError, MovedError

from app.adapters.cache_redis import Command, RedisCache, raise_first, readable
from app.domain.link import Resolution, Slug
from app.wire import cache_key


class Address(NamedTuple):
    """Where a node is, as the cluster calls it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Redirection(NamedTuple):
    """Another node serves the slot of a key: from now on (MOVED), or for this once (ASK)."""

    slot: int
    address: Address
    is_ask: bool


class Redirected(Exception):
    """
    Some keys are elsewhere.

    `answer` is what there is to say about the others; None if they are to be asked for again.
    """

    def __init__(self, elsewhere: Mapping[str, Redirection], answer: Any = None) -> None:
        super().__init__(f"{len(elsewhere)} keys are elsewhere")
        self.elsewhere = elsewhere
        self.answer = answer


class ClusterNode(RedisCache):
    """
    One node of a cluster. Raises `Redirected` for keys of others.

    Args:
        url: see `RedisCache`, as for the rest.
        address: the same, without what is secret.
        is_importing: ask it for slots that are on their way to it, and still belong to another.
    """

    def __init__(
        self,
        url: str,
        address: Address,
        *,
        is_importing: bool,
        timeout_s: float,
        connect_timeout_s: float,
        random: Callable[[], float],
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, random=random)
        self.address = address
        self._is_importing = is_importing

    async def get_many(self, slugs: Sequence[Slug]) -> Mapping[Slug, Resolution]:
        """See `LinkCache.get_many`. One round trip."""
        # The keys are of many slots, which MGET refuses.
        commands: list[Command] = [("GET", cache_key(slug)) for slug in slugs]
        async with self._connection_slot():
            replies = await self._replies(commands)
            raise_first(
                reply
                for reply in replies
                if not isinstance(reply, AskError) and not str(reply).startswith("WRONGTYPE")
            )
        held = readable(slugs, replies)
        self._raise_redirected(commands, replies, held)
        return held

    async def owners(self) -> Mapping[int, Address]:
        """Return who serves which slot, as far as this node knows. Raises Unavailable."""
        async with self._connection_slot():
            ranges = await self._client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        owners = {}
        for first, last, (host, port, *_), *_replicas in ranges:
            # A node that does not know its own name means: the one that you have asked me by.
            address = Address(host.decode() if host else self.address.host, port)
            owners.update(dict.fromkeys(range(first, last + 1), address))
        return owners

    async def size(self) -> int:
        """Return how many keys it holds. Raises Unavailable."""
        async with self._connection_slot():
            return int(await self._client.dbsize())

    async def _pipeline(self, commands: Sequence[Command]) -> list[object]:
        replies = await self._replies(commands)
        self._raise_redirected(commands, replies)
        return replies

    async def _replies(self, commands: Sequence[Command]) -> list[object]:
        if not self._is_importing:
            return await super()._pipeline(commands)
        # It holds for the next command on the connection, and no longer.
        doubled = [part for command in commands for part in (("ASKING",), command)]
        return (await super()._pipeline(doubled))[1::2]

    def _raise_redirected(
        self, commands: Sequence[Command], replies: Sequence[object], answer: Any = None
    ) -> None:
        elsewhere = {}
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, AskError):  # MOVED is one too
                address = Address(reply.host or self.address.host, reply.port)
                is_ask = not isinstance(reply, MovedError)
                elsewhere[_key_of(command)] = Redirection(reply.slot_id, address, is_ask)
        if elsewhere:
            raise Redirected(elsewhere, answer)


def _key_of(command: Command) -> str:
    # EVAL and EVALSHA have a script, and a number of keys, before it.
    return str(command[3 if str(command[0]).startswith("EVAL") else 1])
