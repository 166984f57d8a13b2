"""Tokens on lease follow the demand: what one process does not use is there for the others."""

from __future__ import annotations

import time

import pytest
from hopgate_limiter import Limiter, RedisSync

from tests.servers.proxy import GOOD, FaultProxy, Network
from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.services
BURST = 2400
# `strict` keeps a quarter of the burst for tokens on lease.
CAPACITY = BURST - BURST // 4


def made(url: str, rate: str = f"1/h burst {BURST}") -> Limiter:
    sync = RedisSync(url, prefix="held:", cold="optimistic", optimistic=BURST // 8, timeout=0.05)
    return Limiter(rate, sync=sync)


def hits(limiters: list[Limiter], seconds: float) -> int:
    """Use "k" through each about seven times a second; return how often it was admitted."""
    admitted, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        admitted += sum(limiter.allow("k") for limiter in limiters)
        time.sleep(0.14)
    return admitted


def test_outages_after_a_change_of_rates_cost_little(redis_server: PrivateRedis) -> None:
    """Tokens on lease are lost with Redis. Leases that grow with each outage would use the burst up."""
    redis_server.flush()
    earlier = [made(redis_server.url, "1000000/s") for _ in range(2)]
    for _ in range(20):
        for limiter in earlier:
            limiter.allow("k")
        time.sleep(0.05)
    for limiter in earlier:
        limiter.close()
    with FaultProxy(redis_server.port) as proxy:
        both = [made(f"redis://127.0.0.1:{proxy.port}/0") for _ in range(2)]
        used = hits(both, 6)
        for _ in range(3):
            proxy.become(Network(refuse=True))
            proxy.reset()
            used += hits(both, 2)
            proxy.become(GOOD)
            used += hits(both, 4)

        assert both[0].peek("k").remaining >= CAPACITY - used - 60
        for limiter in both:
            limiter.close()
