"""A private Redis Cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.servers.ports import free_ports
from tests.servers.redis import PrivateRedis

SLOTS = 16_384
_READY_S = 30.0


class PrivateCluster:
    """
    `with PrivateCluster() as cluster:` runs *primaries* with equal shares of the slots.

    The remaining primaries keep serving their slots when one is gone.

    Args:
        replicas: of each primary; they follow the primaries in `nodes`, in the same order.
        node_timeout_ms: a node that is silent for longer counts as failed.
    """

    def __init__(self, *, primaries: int = 3, replicas: int = 0, node_timeout_ms: int = 60_000) -> None:
        self._primaries = primaries
        self._bus_ports = free_ports(primaries * (1 + replicas))
        self.nodes = [
            PrivateRedis(
                *("--cluster-enabled", "yes", "--cluster-port", str(bus_port)),
                *("--cluster-node-timeout", str(node_timeout_ms), "--cluster-require-full-coverage", "no"),
                *("--repl-diskless-sync-delay", "0"),
            )
            for bus_port in self._bus_ports
        ]
        self._running = ExitStack()

    @property
    def primaries(self) -> list[PrivateRedis]:
        """The nodes that were primaries at the start."""
        return self.nodes[: self._primaries]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def first_slot(self, primary: int) -> int:
        """Return where the slots of that primary begin; they end where those of the next do."""
        return primary * SLOTS // self._primaries

    def values(self, pattern: str) -> dict[str, bytes]:
        """Return the strings whose keys match *pattern*, of every primary there is now."""
        held: dict[str, bytes] = {}
        for node in self.nodes:
            if node.is_running and node.info()["role"] == "master":
                held |= node.values(pattern)
        return held

    def flush(self) -> None:
        """Forget all keys."""
        for node in self.primaries:
            node.flush()

    def move(
        self, slot: int, source: PrivateRedis, target: PrivateRedis, keys: Sequence[str | bytes]
    ) -> Callable[[], None]:
        """Move *keys* of *slot*, so that *source* answers ASK; call what is returned to finish with MOVED."""
        ids = [node.command("CLUSTER", "MYID") for node in (source, target)]
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", _text(ids[0]))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", _text(ids[1]))
        for key in keys:
            source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 1000)

        def finish() -> None:
            for node in (target, source):
                node.command("CLUSTER", "SETSLOT", slot, "NODE", _text(ids[1]))

        return finish

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _start(self) -> None:
        for number, node in enumerate(self.nodes):
            self._running.enter_context(node)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.primaries):
            first, next_first = self.first_slot(number), self.first_slot(number + 1)
            node.command("CLUSTER", "ADDSLOTSRANGE", first, next_first - 1)
        for node, bus_port in list(zip(self.nodes, self._bus_ports, strict=True))[1:]:
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, bus_port)
        _eventually(lambda: all(_slots(node) == self._primaries for node in self.nodes))
        for number, replica in enumerate(self.nodes[self._primaries :]):
            primary = self.primaries[number % self._primaries]
            replica.command("CLUSTER", "REPLICATE", _text(primary.command("CLUSTER", "MYID")))
        _eventually(lambda: all(b"cluster_state:ok" in _info(node) for node in self.nodes))
        _eventually(lambda: all(_is_in_step(node) for node in self.nodes[self._primaries :]))


def _slots(node: PrivateRedis) -> int:
    reply = node.command("CLUSTER", "SLOTS")
    assert isinstance(reply, list)
    return len(reply)


def _info(node: PrivateRedis) -> bytes:
    reply = node.command("CLUSTER", "INFO")
    assert isinstance(reply, bytes)
    return reply


def _is_in_step(replica: PrivateRedis) -> bool:
    return replica.info().get("master_link_status") == "up"


def _text(reply: object) -> str:
    assert isinstance(reply, bytes)
    return reply.decode()


def _eventually(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + _READY_S
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError("the cluster did not form")
        time.sleep(0.05)
