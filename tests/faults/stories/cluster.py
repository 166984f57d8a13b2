"""Redis Cluster: a failover, and slots that move."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.crc import key_slot

from app.domain.link import Slug
from app.wire import cache_key
from tests.faults.harness import drill
from tests.faults.harness.drill import Fault, Figures, Timing
from tests.faults.harness.figures import quantile, stale_s
from tests.faults.harness.journal import Kind, Operation, of_kind
from tests.faults.harness.reconfigured import running_with
from tests.faults.harness.recovery import LOAD, cached_wrong, descriptors, recovery_noted
from tests.faults.harness.stage import Stage
from tests.servers.redis import PrivateRedis
from tests.servers.redis_cluster import PrivateCluster

_TIMING = Timing(before_s=4.0, during_s=12.0, after_s=6.0)


def cluster_failover(stage: Stage) -> Figures:
    """The primary in the configured URL is killed; its replica takes over."""
    with PrivateCluster(replicas=1, node_timeout_ms=2000) as cluster:
        lost = range(cluster.first_slot(0), cluster.first_slot(1))
        with running_with(stage, HOPGATE_REDIS_URL=cluster.url):
            figures, due = _on_cluster(stage, cluster, _killed(cluster.nodes[0]))
            others = [op for op in due if _slot(op) not in lost]
            return {
                **figures,
                "other_shards_p99_s": quantile([op.took_s for op in others], 0.99),
                "other_shards_stale_s": stale_s([op for op in stage.history() if _slot(op) not in lost]),
                "other_shards_errors": sum(1 for op in others if op.status == 0 or op.status >= 500),
            }


def cluster_resharded(stage: Stage) -> Figures:
    """Slots move from one primary to another under load; some stay in migration (ASK)."""
    with PrivateCluster() as cluster, running_with(stage, HOPGATE_REDIS_URL=cluster.url):
        return _on_cluster(stage, cluster, _resharded(cluster))[0]


def _on_cluster(
    stage: Stage, cluster: PrivateCluster, fault: Fault
) -> tuple[dict[str, float], list[Operation]]:
    """Return the figures of a load with *fault*, and the visits due during the fault."""
    due: list[Operation] = []
    fds: list[int] = []
    recovery: list[float] = []

    @contextmanager
    def watched(stage: Stage) -> Iterator[None]:
        fds.extend(descriptors(stage))
        began = time.monotonic()
        with fault(stage), recovery_noted(stage, recovery):
            yield
            over = time.monotonic()
        due.extend(op for op in of_kind(stage.history(), Kind.VISIT) if began <= op.intent.due_at < over)

    outcomes = drill.run(stage, watched, _TIMING, **LOAD)
    return {
        **outcomes.figures,
        "violations": len(outcomes.violations),
        "recovery_s": min(recovery, default=float("inf")),
        "fds_grown": max(after - before for before, after in zip(fds, descriptors(stage), strict=True)),
        "cached_wrong": cached_wrong(stage, cluster.values),
    }, due


def _slot(op: Operation) -> int:
    return int(key_slot(cache_key(Slug(op.slug or "")).encode()))


def _killed(node: PrivateRedis) -> Fault:
    @contextmanager
    def fault(_stage: Stage) -> Iterator[None]:
        node.kill()
        yield

    return fault


def _resharded(cluster: PrivateCluster, slots: int = 300) -> Fault:
    @contextmanager
    def fault(_stage: Stage) -> Iterator[None]:
        source, target = cluster.nodes[:2]
        taken = range(cluster.first_slot(1) - slots, cluster.first_slot(1))
        held = [slot for slot in taken if source.command("CLUSTER", "COUNTKEYSINSLOT", slot)][:3]
        unfinished = [cluster.move(slot, source, target, _keys(source, slot)) for slot in held]
        for slot in taken:
            if slot not in held:
                cluster.move(slot, source, target, _keys(source, slot))()
        yield
        for finish in unfinished:
            finish()

    return fault


def _keys(node: PrivateRedis, slot: int) -> list[bytes]:
    reply = node.command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    assert isinstance(reply, list)
    return reply
