"""One node of a Redis Cluster: a cache client that reports MOVED and ASK replies to the router."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import AskError, MovedError

from app.adapters.redis.cache import Command, RedisCache, decoded, raise_first
from app.domain.link import Resolution, Slug
from app.wire import cache_key


class Address(NamedTuple):
    """Host and port of a node, as the cluster announces them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SlotRange(NamedTuple):
    """Slots *first* to *last*, both included, that the primary at *address* serves."""

    first: int
    last: int
    address: Address


class Topology(NamedTuple):
    """
    The slots of all primaries, in order, as one node describes them.

    `is_ok` is what the node says of the cluster. One that is cut off from most primaries says that it is not,
    and does not know of the replicas that have taken over.
    """

    is_ok: bool
    ranges: tuple[SlotRange, ...]

    @property
    def served(self) -> int:
        """The number of slots that a primary serves."""
        return sum(each.last - each.first + 1 for each in self.ranges)


class Moved(NamedTuple):
    """A MOVED or ASK reply: `address` serves `slot` from now on (MOVED), or for one request (ASK)."""

    slot: int
    address: Address
    is_ask: bool


class SlotMoved(Exception):
    """
    A node answered MOVED or ASK for some keys: `moved` says where each of them is served.

    `rest` is the result for the other keys; None if they have to be sent again.
    """

    def __init__(self, moved: Mapping[str, Moved], rest: Any = None) -> None:
        super().__init__(f"{len(moved)} keys are served by another node")
        self.moved = moved
        self.rest = rest


class ClusterNode(RedisCache):
    """
    One node of a cluster. Raises `SlotMoved` for keys that another node serves.

    Args:
        url: see `RedisCache`, as for the rest.
        address: host and port of *url*, without its credentials.
        is_importing: send ASKING before each command, as for slots that are migrating to this node.
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
        """One round trip, a pipeline of GET: the keys are of many slots, which MGET refuses."""
        commands: list[Command] = [("GET", cache_key(slug)) for slug in slugs]
        async with self._connection_slot():
            replies = await self._replies(commands)
            raise_first(
                reply
                for reply in replies
                if not isinstance(reply, AskError) and not str(reply).startswith("WRONGTYPE")
            )
        held = decoded(slugs, replies)
        self._raise_moved(commands, replies, held)
        return held

    async def topology(self) -> Topology:
        """Return the primaries and their slots, as far as this node knows. Raises Unavailable."""
        async with self._connection_slot():
            replies: list[Any] = await super()._pipeline([("CLUSTER", "SLOTS"), ("CLUSTER", "INFO")])
            raise_first(replies)
        slots, info = replies
        ranges = []
        for first, last, (host, port, *_), *_replicas in slots:
            # An empty host means the address that the node was asked at.
            address = Address(host.decode() if host else self.address.host, port)
            ranges.append(SlotRange(first, last, address))
        return Topology(b"cluster_state:ok" in info, tuple(sorted(ranges)))

    async def size(self) -> int:
        """Return how many keys the node holds. Raises Unavailable."""
        async with self._connection_slot():
            return int(await self._client.dbsize())

    async def _pipeline(self, commands: Sequence[Command]) -> list[object]:
        replies = await self._replies(commands)
        self._raise_moved(commands, replies)
        return replies

    async def _replies(self, commands: Sequence[Command]) -> list[object]:
        if not self._is_importing:
            return await super()._pipeline(commands)
        # ASKING holds for the next command on the connection only.
        doubled = [part for command in commands for part in (("ASKING",), command)]
        return (await super()._pipeline(doubled))[1::2]

    def _raise_moved(self, commands: Sequence[Command], replies: Sequence[object], rest: Any = None) -> None:
        moved = {}
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, AskError):  # the base class of MovedError
                address = Address(reply.host or self.address.host, reply.port)
                is_ask = not isinstance(reply, MovedError)
                moved[_key_of(command)] = Moved(reply.slot_id, address, is_ask)
        if moved:
            raise SlotMoved(moved, rest)


def _key_of(command: Command) -> str:
    # EVAL and EVALSHA have a script, and a number of keys, before it.
    return str(command[3 if str(command[0]).startswith("EVAL") else 1])
