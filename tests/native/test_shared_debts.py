"""Debts of admissions without tokens, and overflow buckets, against the script in a real Redis."""

from __future__ import annotations

import pytest
import redis
from hopgate_limiter import Decision, Limiter, ManualClock, RedisSync
from hopgate_limiter._native import _CompletionQueue

from tests.native.central_state import CentralState

DAY_US = 86_400_000_000


@pytest.mark.parametrize("cold", ["sync", "optimistic"])
def test_full_shards_decide_by_overflow_bucket(redis_server, cold):
    """Each shard of a full table has an overflow bucket under a Redis key of its own."""
    with redis.Redis(port=redis_server.port) as client:
        clock, now_us = ManualClock(), DAY_US
        sync = RedisSync("redis://localhost", cold=cold)
        limiter = Limiter("1000/d", max_keys=16, clock=clock, sync=sync)
        queue = _CompletionQueue(-1)
        states: dict[bytes, CentralState] = {}
        decisions: dict[int, Decision] = {}

        def exchange() -> None:
            while requests := limiter._collect():
                assert len({request.key for request in requests}) == len(requests)
                for request in requests:
                    if request.key not in states:
                        states[request.key] = CentralState(client, request.key)
                    limiter._complete(request, states[request.key].run(request.body, now_us).numbers)
            decisions.update(queue.take_all())

        for call_id in range(100):
            decision = limiter._submit(f"client{call_id}", 1, queue, call_id)
            if decision is not None:
                decisions[call_id] = decision
            exchange()

        assert limiter.stats().keys <= 16 + 16
        assert limiter.stats().overflowed >= 84
        assert sorted(decisions) == list(range(100))
        assert all(decisions.values())
        overflows = {key for key in states if key.startswith(b"rl:\0overflow")}
        assert 1 < len(overflows) <= 16


@pytest.mark.parametrize(("nodes", "optimistic"), [(1, 100), (10, 10)])
def test_large_debt_is_debited_in_parts(redis_server, nodes, optimistic):
    """Units admitted without tokens are debited exactly, over as many exchanges as that takes."""
    with redis.Redis(port=redis_server.port) as client:
        state, now_us, clock = CentralState(client, b"rl:k"), DAY_US, ManualClock()
        options = {"cold": "optimistic", "optimistic": optimistic, "max_outstanding": 0}
        limiters = [
            Limiter("10/s", clock=clock, sync=RedisSync("redis://localhost", **options)) for _ in range(nodes)
        ]

        def calls() -> int:
            return sum(limiter.allow("k") for limiter in limiters for _ in range(200))

        admitted = calls()
        assert admitted == 100
        for seconds in range(60):
            for limiter in limiters:
                for request in limiter._collect():
                    limiter._complete(request, state.run(request.body, now_us).numbers)
                # Redis has debited a part, the process keeps the rest: no request is repeated at once.
                assert limiter._collect() == []
            admitted += calls()
            assert admitted <= 10 + 10 * seconds + 100
            clock.advance(10**9)
            now_us += 1_000_000
        assert admitted >= 10 * 59


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
@pytest.mark.parametrize("mode", ["strict", "leased"])
@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("nodes", [1, 3])
def test_debt_on_a_full_key_still_counts(redis_server, algorithm, mode, first, nodes):
    """A node with one token has none for calls of two. While no time passes, each has its allowance once."""
    with redis.Redis(port=redis_server.port) as client:
        state = CentralState(client, b"rl:k")
        options = {"mode": mode, "cold": "optimistic", "optimistic": 30, "max_outstanding": 1}
        limiters = [
            Limiter(
                "5/s",
                algorithm=algorithm,
                clock=ManualClock(),
                sync=RedisSync("redis://localhost", **options),
            )
            for _ in range(nodes)
        ]
        admitted = first * sum(limiter.allow("k", first) for limiter in limiters)
        for _ in range(12):
            for limiter in limiters:
                for request in limiter._collect():
                    limiter._complete(request, state.run(request.body, DAY_US).numbers)
                admitted += 2 * sum(limiter.allow("k", 2) for _ in range(5))
        assert admitted <= 5 + nodes * 30 + (mode == "leased")


def test_close_ends_despite_remaining_debt(redis_server):
    with redis.Redis(port=redis_server.port) as client:
        state = CentralState(client, b"rl:k")
        sync = RedisSync("redis://localhost", cold="optimistic", optimistic=100)
        limiter = Limiter("10/s", clock=ManualClock(), sync=sync)
        assert all(limiter.allow("k") for _ in range(100))
        limiter.close()
        (request,) = limiter._collect()
        limiter._complete(request, state.run(request.body, DAY_US).numbers)
        assert limiter._collect() == []
