"""The guards of one process: bulkhead, circuit breaker and deadline for each kind of call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.concurrency.guard import DependencyGuard, GuardLimits, GuardSnapshot
from app.resilience.breaker import BreakerPolicy
from app.resilience.deadline import (
    BATCH_WAIT_S,
    CACHE_FILL_S,
    CACHE_S,
    COMMAND_S,
    COMMAND_WAIT_S,
    LOOKUP_S,
    LOOKUP_WAIT_S,
    PUBLISH_S,
    REPLICA_S,
    STORE_S,
    STORE_WAIT_S,
)
from app.resilience.retry import RetryBudget

# Shares of the pool's eight connections: neither a flood of misses nor a flood of listings may
# occupy all of them.
_LOOKUP = GuardLimits(max_running=4, max_waiting=64, wait_s=LOOKUP_WAIT_S, call_s=LOOKUP_S)
# One for each connection. No queue: when all are busy, the primary is asked.
_REPLICA = GuardLimits(max_running=4, max_waiting=0, wait_s=0, call_s=REPLICA_S)
_CHANGE = GuardLimits(max_running=2, max_waiting=64, wait_s=STORE_WAIT_S, call_s=STORE_S)
# Single creates share round trips, which use two connections (see `postgres/adds.py`).
_CREATE = GuardLimits(max_running=128, max_waiting=0, wait_s=0, call_s=STORE_S)
_BULK = GuardLimits(max_running=2, max_waiting=64, wait_s=STORE_WAIT_S, call_s=STORE_S)
# A batch has thousands of links: the wait for a place is that of one before it.
_BATCH = GuardLimits(max_running=2, max_waiting=16, wait_s=BATCH_WAIT_S, call_s=STORE_S)
# Redirects share round trips; this bounds all other reads.
_MAX_READS = 64
_WRITE = GuardLimits(max_running=16, max_waiting=64, wait_s=CACHE_S, call_s=2 * CACHE_FILL_S)
_PUBLISH = GuardLimits(max_running=256, max_waiting=0, wait_s=0, call_s=PUBLISH_S)

_PATIENT = BreakerPolicy()
# A silent broker costs each call more than a second, so three failures open the breaker. No redirect
# waits for it, and lost connections are noticed elsewhere, so it is probed often.
_IMPATIENT = BreakerPolicy(min_calls=3, longest_open_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreGuards:
    """For look-ups, single creates, other changes, batches of changes, and other calls about many rows."""

    lookup: DependencyGuard
    create: DependencyGuard
    change: DependencyGuard
    batch: DependencyGuard
    bulk: DependencyGuard


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGuards:
    """For reads and for writes."""

    read: DependencyGuard
    write: DependencyGuard


class DependencyGuards:
    """
    All guards of one process.

    Args:
        cache_read_s: the deadline of a cache read.
        is_patient: calls to the store, and writes to the cache, may take `COMMAND_S`: no request waits.
    """

    def __init__(self, *, cache_read_s: float = CACHE_S, is_patient: bool = False) -> None:
        retries = RetryBudget()
        self._is_patient = is_patient
        limited = self._limited
        lookup = limited(_LOOKUP)
        read = GuardLimits(max_running=_MAX_READS, max_waiting=0, wait_s=0, call_s=cache_read_s)
        self.store = StoreGuards(
            lookup=DependencyGuard(
                "postgresql.lookup", lookup, BreakerPolicy(slow_s=lookup.call_s * 0.8), budget=retries
            ),
            create=DependencyGuard("postgresql.create", limited(_CREATE), _PATIENT),
            change=DependencyGuard("postgresql.change", limited(_CHANGE), _PATIENT),
            batch=DependencyGuard("postgresql.batch", limited(_BATCH), _PATIENT),
            bulk=DependencyGuard("postgresql.bulk", limited(_BULK), _PATIENT, budget=retries),
        )
        self._cache_read = read, BreakerPolicy(slow_s=cache_read_s * 0.8, silent_s=0.1)
        self.cache = self._cache_guards("")
        self._shards: dict[str, CacheGuards] = {}
        self._replicas: list[DependencyGuard] = []
        self.publish = DependencyGuard("rabbitmq.publish", _PUBLISH, _IMPATIENT)

    def shard(self, name: str) -> CacheGuards:
        """Return the guards of one shard of the cache: shards fail independently."""
        if name not in self._shards:
            self._shards[name] = self._cache_guards(f"@{name}")
        return self._shards[name]

    def forget_shard(self, name: str) -> None:
        """Drop the guards of a shard that left: without calls an open breaker would stay open."""
        self._shards.pop(name, None)

    def replica(self) -> DependencyGuard:
        """Return a guard for one more replica of the store."""
        name = f"postgresql.replica@{len(self._replicas) + 1}"
        self._replicas.append(DependencyGuard(name, _REPLICA, BreakerPolicy(slow_s=REPLICA_S * 0.8)))
        return self._replicas[-1]

    def snapshot(self) -> Mapping[str, GuardSnapshot]:
        """Return the state of each guard, by a name that is stable between releases."""
        store = (
            self.store.lookup,
            self.store.create,
            self.store.change,
            self.store.batch,
            self.store.bulk,
        )
        caches = [guard for one in (*self._shards.values(), self.cache) for guard in (one.read, one.write)]
        return {guard.name: guard.snapshot() for guard in (*store, *self._replicas, *caches, self.publish)}

    def _cache_guards(self, shard: str) -> CacheGuards:
        return CacheGuards(
            # A read can fall back to the store at once, so probes run beside the callers.
            read=DependencyGuard(f"redis.read{shard}", *self._cache_read, probes_aside=True),
            write=DependencyGuard(f"redis.write{shard}", self._limited(_WRITE), _PATIENT),
        )

    def _limited(self, limits: GuardLimits) -> GuardLimits:
        """Return *limits*, with the times of a command if this is one."""
        return replace(limits, wait_s=COMMAND_WAIT_S, call_s=COMMAND_S) if self._is_patient else limits
