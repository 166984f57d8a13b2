"""Guarded adapters for the suites, which ask for far more at once than a gateway does."""

from __future__ import annotations

from collections.abc import Mapping

from app.adapters.bus_rabbitmq import RabbitBus
from app.adapters.guarded import CacheGuards, GuardedBus, Guards, StoreGuards
from app.resilience.breaker import BreakerPolicy
from app.resilience.guard import Guard, Limits
from app.resilience.retry import RetryBudget

_WIDE = Limits(max_running=1000, max_waiting=0, wait_s=0, call_s=20)


def wide_store_guards() -> StoreGuards:
    budget = RetryBudget()
    names = ("lookup", "create", "change", "bulk")
    return StoreGuards(**{name: Guard("postgresql", _WIDE, BreakerPolicy(), budget=budget) for name in names})


def wide_cache_guards() -> CacheGuards:
    return CacheGuards(**{name: Guard("redis", _WIDE, BreakerPolicy()) for name in ("read", "write")})


class GuardedRabbit(GuardedBus):
    """As it ships, and with the look behind the curtain that the suite wants."""

    def __init__(self, bus: RabbitBus) -> None:
        super().__init__(bus, Guards().publish)
        self._rabbit = bus

    async def depths(self) -> Mapping[str, int]:
        return await self._rabbit.depths()
