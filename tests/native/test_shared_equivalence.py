"""Shared limits without leases equal a central limiter; with leases they use the whole rate under load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import redis
from hopgate_limiter import Decision, Limiter, ManualClock, Rate, RedisSync
from hopgate_limiter._native import _CompletionQueue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.budgets import examples
from tests.native.central_state import CentralState
from tests.servers.redis import PrivateRedis

START_US = 1_900_000_000_000_000
TTL_S = 0.2


@pytest.fixture(scope="module")
def client(redis_server: PrivateRedis) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_server.port) as client:
        yield client


class Central:
    """A shared limiter and its Redis, with a perfect network between them."""

    def __init__(self, client: redis.Redis, limiter: Limiter, clock: ManualClock) -> None:
        self.limiter = limiter
        self.clock = clock
        self.state = CentralState(client, b"rl:k")
        self.queue = _CompletionQueue(-1)

    def hit(self, cost: int) -> Decision:
        decision = self.limiter._submit("k", cost, self.queue, 1)
        self.exchange()
        if decision is None:
            ((_, decision),) = self.queue.take_all()
        return decision

    def exchange(self) -> None:
        for request in self.limiter._collect():
            now_us = START_US + self.clock.now_ns // 1000
            self.limiter._complete(request, self.state.run(request.body, now_us).numbers)


# Periods with a whole number of microseconds per unit: all three compute exactly.
exact_rates = st.builds(
    lambda limit, us, burst: Rate(limit, f"{limit * us}us", burst=burst),
    st.integers(1, 20),
    st.sampled_from([1, 7, 1000, 333_333]),
    st.integers(1, 10),
)


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    exact_rates, st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 1), st.integers(1, 8)), max_size=40)
)
def test_script_engine_and_rationals_agree(bucket, client, rate, steps):
    """L11: script, Rust and exact fractions agree on every decision of one history."""
    clock = ManualClock()
    central = Central(
        client, Limiter(rate, clock=clock, sync=RedisSync("redis://localhost", mode="every_hit")), clock
    )
    local = Limiter(rate, clock=clock)
    model = bucket(rate)
    token_us = rate.period_ns // rate.limit // 1000
    for tokens, off_us, cost in steps:
        wait_ns = max(0, tokens * token_us + off_us) * 1000
        clock.advance(wait_ns)
        model.now += wait_ns
        expected = local.hit("k", cost)
        assert expected.allowed == model.hit(cost)
        decision = central.hit(cost)
        assert decision.allowed == expected.allowed
        if decision.source == "negative-cache":
            # The refusal of Redis may be for a smaller cost.
            assert 0 < decision.retry_after <= expected.retry_after
        else:
            assert decision.retry_after == expected.retry_after
        if decision.source == "redis":
            assert decision.remaining == min(expected.remaining, decision.remaining)
            if decision:
                assert decision.remaining == expected.remaining
                assert decision.reset_after == expected.reset_after


@settings(max_examples=examples(20), suppress_health_check=list(HealthCheck))
@given(st.integers(1, 10), st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=40))
def test_redis_window_admits_no_more_than_log(client, limit, steps):
    """L11: a window in Redis admits no more than the exact log would, and all of it after a pause."""
    clock = ManualClock()
    rate = Rate(limit, "16ms")
    sliding = partial(Limiter, rate, algorithm="sliding_window", clock=clock)
    central = Central(client, sliding(sync=RedisSync("redis://localhost", mode="every_hit")), clock)
    admitted: list[tuple[int, int]] = []
    for wait_ms, cost in steps:
        clock.advance(wait_ms * 1_000_000)
        recent = sum(c for at, c in admitted if at > clock.now_ns - rate.period_ns)
        older = sum(c for at, c in admitted if at > clock.now_ns - rate.period_ns - 2_000_000)
        if central.hit(cost).allowed:
            assert recent + cost <= limit
            admitted.append((clock.now_ns, cost))
        elif cost <= limit:
            assert older + cost > limit


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_busy_nodes_use_and_share_the_rate(client, algorithm, nodes):
    """L7, L13: with demand on all nodes nearly all of the rate is used, and each node gets its part."""
    clock = ManualClock()
    rate = Rate(200, "1s", name="r")
    limiters = [
        Limiter(rate, algorithm=algorithm, clock=clock, sync=RedisSync("redis://localhost", lease_ttl=TTL_S))
        for _ in range(nodes)
    ]
    parties = [Central(client, limiter, clock) for limiter in limiters]
    admitted = [0] * nodes
    seconds = 10
    for step in range(seconds * 500):
        clock.advance(2_000_000)
        for i in range(nodes):
            which = (i + step) % nodes
            admitted[which] += parties[which].hit(1).allowed
    assert sum(admitted) <= 200 + 200 * seconds
    # Tokens that may be on lease are held back from every window; the oldest bucket counts in full.
    usable = 200 if algorithm == "gcra" else 150 * 16 / 17
    assert sum(admitted) >= usable * seconds - 50
    for count in admitted:
        assert count >= 0.6 * sum(admitted) / nodes


def test_late_returns_are_not_credited(client):
    """L5: tokens returned after their lease has expired in Redis may have been replaced already."""
    clock = ManualClock()
    sync = RedisSync("redis://localhost", max_outstanding=5, max_lease=5, lease_ttl=TTL_S)
    central = Central(client, Limiter("10/d", clock=clock, sync=sync), clock)
    first = central.hit(1)
    left = first.remaining - central.limiter.stats().held
    assert central.limiter.stats().held > 0
    clock.advance(round(0.6 * TTL_S * 1e9))
    (request,) = central.limiter._collect()
    assert central.limiter._ledger()[2] > 0
    before = central.state.stored()
    late = central.state.run(request.body, START_US + 10_000_000)
    assert late.numbers[2] == left
    assert central.state.stored() == before


def test_lease_starts_when_request_is_sent(client):
    """L4: tokens of a late reply expire soon: their lease starts with the request, not with the reply."""
    clock = ManualClock()
    central = Central(
        client, Limiter("10/d", clock=clock, sync=RedisSync("redis://localhost", lease_ttl=TTL_S)), clock
    )
    assert central.limiter._submit("k", 1, central.queue, 1) is None
    (request,) = central.limiter._collect()
    reply = central.state.run(request.body, START_US)
    clock.advance(round(0.5 * TTL_S * 1e9))
    central.limiter._complete(request, reply.numbers)
    assert central.limiter.stats().held > 0
    clock.advance(round(0.5 * TTL_S * 1e9))
    assert central.limiter.stats().held == 0
    central.queue.take_all()
    assert central.hit(1).source == "redis"


def test_intervals_are_rounded_up(client):
    """L1: a third of a microsecond per token, rounded down, gains a token in a million."""
    clock = ManualClock()
    rate = Rate(3, "1us", burst=6_000_000)
    central = Central(
        client, Limiter(rate, clock=clock, sync=RedisSync("redis://localhost", mode="every_hit")), clock
    )
    assert central.hit(6_000_000)
    clock.advance(1_999_999_000)
    assert not central.hit(6_000_000)


def test_held_tokens_are_not_leased_again(client):
    """L3: a renewed lease counts all tokens held under it, for its own node as well."""
    clock = ManualClock()
    nodes = []
    for _ in range(2):
        sync = RedisSync("redis://localhost", max_outstanding=8, lease_ttl=TTL_S)
        limiter = Limiter("100000/d burst 4000", clock=clock, sync=sync)
        nodes.append(Central(client, limiter, clock))
    for step in range(300):
        for node in nodes:
            for _ in range(1 + step % 5):
                node.hit(1)
            # Sometimes long enough for a lease to be renewed before it is spent.
            clock.advance(1_000_000 if step % 7 else 160_000_000)
            held = [node.limiter.stats().held for node in nodes]
            assert sum(held) <= 8
            assert sum(tokens for _, tokens in node.state.leases().values()) >= sum(held)
