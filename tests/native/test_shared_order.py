"""In which order keys go to Redis when more of them wait than one exchange takes."""

from __future__ import annotations

import pytest
import redis
from hopgate_limiter import Limiter, ManualClock, RedisSync

from tests.native.central_state import CentralState

DAY_US = 86_400_000_000
FLOOD, TURN = 1000, 8


class Node:
    """A process that a flood of new clients reaches, against the script in a real Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._states: dict[bytes, CentralState] = {}
        sync = RedisSync("redis://localhost", cold="optimistic", optimistic=5)
        self.limiter = Limiter("100/s burst 100", clock=ManualClock(), sync=sync)

    def turn(self, limit: int = TURN) -> list[str]:
        """Exchange what *limit* keys ask; return the keys."""
        requests = self.limiter._collect(limit)
        for request in requests:
            state = self._states.setdefault(request.key, CentralState(self._client, request.key))
            self.limiter._complete(request, state.run(request.body, DAY_US).numbers)
        return [request.key.removeprefix(b"rl:").decode() for request in requests]

    def flood(self) -> None:
        assert all(self.limiter.allow(f"new{number}") for number in range(FLOOD))


@pytest.fixture
def node(redis_server):
    with redis.Redis(port=redis_server.port) as client:
        yield Node(client)


def test_key_from_before_a_flood_is_among_the_first(node):
    node.limiter.allow("before")
    node.turn()
    node.flood()
    while node.limiter.allow("before"):
        pass

    assert node.turn()[0] == "before"
    assert node.limiter.allow("before")


def test_key_that_is_refused_in_a_flood_is_among_the_first(node):
    node.flood()
    while node.limiter.allow("during"):
        pass

    assert node.turn()[0] == "during"
    assert node.limiter.allow("during")


def test_each_key_goes_once_though_it_was_put_forward(node):
    for _ in range(6):
        node.limiter.allow("during")

    assert node.turn(limit=1) == ["during"]
    assert node.turn(limit=100) == []


def test_new_keys_go_on_beside_a_flood_of_known_ones(node):
    known = [f"known{number}" for number in range(100)]
    for key in known:
        node.limiter.allow(key)
    node.turn(limit=1000)
    node.limiter.allow("new")
    for key in known:
        while node.limiter.allow(key):
            pass

    assert "new" in node.turn()
