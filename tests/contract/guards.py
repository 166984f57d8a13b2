"""Guards with limits wide enough for the suites, which make far more calls at once than a gateway."""

from __future__ import annotations

from typing import Any

from app.adapters.guarded import guarded_bus
from app.adapters.guards import CacheGuards, DependencyGuards, StoreGuards
from app.adapters.rabbitmq.bus import RabbitBus
from app.concurrency.guard import DependencyGuard, GuardLimits
from app.resilience.breaker import BreakerPolicy
from app.resilience.retry import RetryBudget

_WIDE = GuardLimits(max_running=1000, max_waiting=0, wait_s=0, call_s=20)


def wide_store_guards() -> StoreGuards:
    budget = RetryBudget()
    names = ("lookup", "create", "change", "batch", "bulk")
    return StoreGuards(
        **{
            name: DependencyGuard(f"postgresql.{name}", _WIDE, BreakerPolicy(), budget=budget)
            for name in names
        }
    )


def wide_cache_guards() -> CacheGuards:
    return CacheGuards(
        **{name: DependencyGuard(f"redis.{name}", _WIDE, BreakerPolicy()) for name in ("read", "write")}
    )


def guarded_rabbit(bus: RabbitBus) -> Any:
    """Return *bus* guarded as in production, and with the `depths` that the suite reads."""
    guarded: Any = guarded_bus(bus, DependencyGuards().publish)
    guarded.depths = bus.depths
    return guarded
