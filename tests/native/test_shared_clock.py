"""Shared limits while the clock of Redis is set back, or a server with a slower one takes over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hopgate_limiter import Decision, Limiter, ManualClock, RedisSync
from hopgate_limiter._native import _CompletionQueue

from tests.native.central_state import CentralState

DAY_US = 86_400_000_000
STEP_US = 50_000


@pytest.fixture
def state(redis_server) -> Iterator[CentralState]:
    with redis.Redis(port=redis_server.port) as client:
        yield CentralState(client, b"rl:k")


class Node:
    """One process, and a perfect network to a Redis whose clock is an argument."""

    def __init__(self, state: CentralState, rates: str, algorithm: str, **sync: object) -> None:
        self.clock = ManualClock()
        options: dict[str, object] = {"mode": "every_hit", **sync}
        self.limiter = Limiter(
            rates,
            algorithm=algorithm,  # type: ignore[arg-type]
            clock=self.clock,
            sync=RedisSync("redis://localhost", **options),  # type: ignore[arg-type]
        )
        self.state = state
        self.queue = _CompletionQueue(-1)

    def hit(self, now_us: int, cost: int = 1) -> Decision:
        """Hit when the clock of Redis shows *now_us*."""
        decision = self.limiter._submit("k", cost, self.queue, 1)
        if decision is None:
            (request,) = self.limiter._collect()
            self.limiter._complete(request, self.state.run(request.body, now_us).numbers)
            ((_, decision),) = self.queue.take_all()
        return decision

    def poll(self, start_us: int, times: int) -> int:
        """Hit *times* times, each STEP_US after the one before; return how many are admitted."""
        admitted = 0
        for i in range(times):
            admitted += self.hit(start_us + i * STEP_US).allowed
            self.clock.advance(STEP_US * 1000)
        return admitted


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
@pytest.mark.parametrize("back_us", [1, 1000, 500_000, 1_000_001, 2_000_000, 40_000_000, DAY_US, 9 * DAY_US])
@pytest.mark.parametrize("rates", ["10/s", "10/s; 100000/d"])
def test_redis_clock_set_back_costs_a_window(state, algorithm, back_us, rates):
    """Class 12: a busy key was shut for the difference, up to a minute; or it owed twice its burst."""
    node = Node(state, rates, algorithm)
    start = 10 * DAY_US
    before = node.poll(start, 20)
    assert 10 <= before <= 20
    # Three seconds by a clock that has gone back: a window may be lost, and nothing is gained.
    after = node.poll(start + 1_000_000 - back_us, 60)
    assert 19 <= after <= 30


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
@pytest.mark.parametrize("back_us", [1_500_000, 40_000_000, DAY_US])
def test_retry_after_is_kept_while_the_clock_is_behind(state, algorithm, back_us):
    """The wait of a refused call is right, although refusals write nothing."""
    node = Node(state, "10/s", algorithm)
    start = 10 * DAY_US
    assert node.hit(start, 10)
    behind = start - back_us
    node.clock.advance(10**10)  # the refusal that the first reply announced is over
    refused = node.hit(behind, 10)
    before = state.stored()
    assert 0 < refused.retry_after <= (1.0 if algorithm == "gcra" else 1.07)
    wait_us = round(refused.retry_after * 1e6)
    node.clock.advance(wait_us * 1000 - 1000)
    assert not node.hit(behind + wait_us - 1, 10)
    assert state.stored() == before
    node.clock.advance(10**9)
    assert node.hit(behind + wait_us, 10)
    assert not node.hit(behind + wait_us, 1)


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
def test_steps_back_add_nothing(state, algorithm):
    """However often the clock goes back, a limit of ten a day stays one."""
    node = Node(state, "10/d", algorithm)
    now, admitted = 100 * DAY_US, 0
    for back_us in (1, 1_000_000, 3_600_000_000, DAY_US, 2 * DAY_US, 1, 40_000_000, DAY_US // 2):
        for _ in range(5):
            admitted += node.hit(now).allowed
            now += 1_000_000
            node.clock.advance(DAY_US * 1000)  # forgets refusals
        now -= back_us
    assert admitted == 10


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
def test_an_old_look_at_the_state_does_not_count(state, algorithm):
    """What has passed since a node saw the state says nothing once another node has changed it."""
    node, other = Node(state, "10/s", algorithm), Node(state, "10/s", algorithm)
    start = 10 * DAY_US
    assert node.hit(start, 9)
    behind = start - DAY_US // 2
    assert not node.hit(behind, 2)
    assert not other.hit(behind, 10)
    for each in (node, other):
        each.clock.advance(DAY_US * 1000)  # forgets refusals
    assert other.hit(behind + 10_000_000, 10)
    # The clock goes back once more, to between the two.
    assert node.limiter._submit("k", 2, node.queue, 2) is None
    (request,) = node.limiter._collect()
    for _ in range(3):
        assert -1 not in state.run(request.body, behind + 8_000_000).verdicts


def test_leases_end_while_the_clock_is_behind(state):
    """L3: tokens leased before the step count until their lease has ended, and are then leased anew."""
    start = 10 * DAY_US
    nodes = [Node(state, "1000/d", "gcra", mode="strict", max_outstanding=5) for _ in range(2)]
    first, second = nodes
    assert first.hit(start)
    assert first.limiter.stats().held > 0
    behind, granted = start - 40_000_000, 0
    for i in range(40):
        assert second.hit(behind + i * STEP_US)
        second.clock.advance(STEP_US * 1000)
        first.clock.advance(STEP_US * 1000)
        held = sum(node.limiter.stats().held for node in nodes)
        assert held <= 5
        granted = max(granted, second.limiter.stats().held)
    assert first.limiter.stats().held == 0
    assert granted >= 3
