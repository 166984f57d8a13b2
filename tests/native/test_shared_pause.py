"""At default settings no client is refused for a short pause of Redis or a long round trip."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hopgate_limiter import Decision, Limiter, RedisSync
from redis import Redis

from tests.servers.proxy import FaultProxy, Network
from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.mark.parametrize("pause_ms", [60, 120])
def test_a_pause_refuses_no_new_client(server, pause_ms):
    """One call each 10 ms, each from a client that was never seen, before, during and after the pause."""
    with (
        closing(Limiter("100/min", sync=RedisSync(server.url, prefix=f"p{pause_ms}:"))) as limiter,
        Redis(port=server.port) as admin,
    ):
        assert limiter.hit("first")
        pausing = threading.Timer(0.1, lambda: admin.execute_command("CLIENT", "PAUSE", pause_ms))
        pausing.start()
        until, refused, number = time.monotonic() + 1.0, 0, 0
        while time.monotonic() < until:
            refused += not limiter.allow(f"client{number}")
            number += 1
            time.sleep(0.01)
        pausing.join()
    assert refused == 0


@pytest.mark.parametrize("mode", ["strict", "every_hit"])
@pytest.mark.parametrize("clients", [3000, 10_000])
def test_a_herd_of_new_clients_is_admitted(server, mode, clients):
    """All in one tick of an event loop: Redis needs longer for them than one caller waits for it."""
    prefix = f"herd{clients}{mode}:"
    with closing(Limiter("100/min", sync=RedisSync(server.url, prefix=prefix, mode=mode))) as limiter:

        async def herd() -> list[Decision]:
            return await asyncio.gather(*(limiter.hit_async(f"client{n}") for n in range(clients)))

        decisions = asyncio.run(herd())
        assert sum(not decision for decision in decisions) == 0
        assert {decision.source for decision in decisions} == {"redis"}


def test_a_herd_is_admitted_over_a_long_round_trip(server):
    """More pipelines than fit into the patience of one call, each as long as the network is."""
    with (
        FaultProxy(server.port) as proxy,
        closing(
            Limiter("100/min", sync=RedisSync(f"redis://127.0.0.1:{proxy.port}", prefix="farherd:"))
        ) as limiter,
    ):
        proxy.become(Network(latency_s=0.03))
        decisions = limiter.hit_many([(f"client{n}", 1) for n in range(6000)])
        assert sum(not decision for decision in decisions) == 0


def test_a_herd_ends_with_redis(server):
    """Redis falls silent in the middle of it: the rest is decided without, in a few timeouts."""
    with (
        FaultProxy(server.port) as proxy,
        closing(
            Limiter(
                "100/min", sync=RedisSync(f"redis://127.0.0.1:{proxy.port}", prefix="cut:", on_error="deny")
            )
        ) as limiter,
    ):
        proxy.become(Network(latency_s=0.03))

        async def herd() -> list[Decision]:
            assert (await limiter.hit_async("first")).source == "redis"
            calls = [asyncio.ensure_future(limiter.hit_async(f"client{n}")) for n in range(6000)]
            await calls[0]
            proxy.become(Network(silent_down=True))
            return await asyncio.gather(*calls)

        started = time.monotonic()
        sources = {decision.source for decision in asyncio.run(herd())}
        assert "fallback" in sources
        assert time.monotonic() - started < 3 * 0.25 + 5.0


@pytest.mark.parametrize("round_trip_s", [0.04, 0.06])
def test_a_long_round_trip_is_waited_for(server, round_trip_s):
    """Redis decides, not this process alone."""
    with (
        FaultProxy(server.port) as proxy,
        closing(
            Limiter("100/min", sync=RedisSync(f"redis://127.0.0.1:{proxy.port}", prefix="far:"))
        ) as limiter,
    ):
        proxy.become(Network(latency_s=round_trip_s / 2))
        sources = {limiter.hit(f"{round_trip_s} {number}").source for number in range(20)}
        assert sources == {"redis"}
