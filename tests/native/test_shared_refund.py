"""Refunds of shared limits: made in Redis, by one message, or an error."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis
from hopgate_limiter import Limiter, ManualClock, RedisSync
from hopgate_limiter._native import _CompletionQueue

from tests.native.central_state import CentralState
from tests.servers.proxy import FaultProxy, Network
from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.alone

DAY_US = 86_400_000_000
Refund = Callable[[Limiter, str, int], None]
REFUNDS: dict[str, Refund] = {
    "refund": lambda limiter, key, cost: limiter.refund(key, cost),
    "refund_async": lambda limiter, key, cost: asyncio.run(limiter.refund_async(key, cost)),
}


@pytest.fixture(scope="module")
def shared_server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def server(shared_server) -> PrivateRedis:
    with redis.Redis(port=shared_server.port) as client:
        client.flushall()
    return shared_server


def limiter(server: PrivateRedis, rates: str = "100/d", **kwargs: object) -> Limiter:
    algorithm = kwargs.pop("algorithm", "gcra")
    options: dict[str, object] = {"timeout": 1.0, **kwargs}
    return Limiter(rates, algorithm=algorithm, sync=RedisSync(server.url, **options))  # type: ignore[arg-type]


def eventually(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


@pytest.mark.parametrize("refund", REFUNDS.values(), ids=REFUNDS)
@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
@pytest.mark.parametrize("mode", ["every_hit", "strict", "leased"])
def test_units_are_there_again(server, mode, algorithm, refund):
    """Another process gets all of them."""
    options = {"mode": mode, "algorithm": algorithm}
    with closing(limiter(server, **options)) as one, closing(limiter(server, **options)) as other:
        before = one.peek("k").remaining
        assert one.hit("k", 40)
        calls = one.stats().remote_calls
        refund(one, "k", 40)
        assert one.stats().remote_calls - calls <= 2
        assert one.peek("k").remaining == before
        one.close()
        assert other.peek("k").remaining == before
        assert other.hit("k", before)
        assert other.stats().last_error is None


@pytest.mark.parametrize("mode", ["every_hit", "strict"])
def test_one_message(server, mode):
    with closing(limiter(server, mode=mode, max_outstanding=0)) as one:
        assert one.hit("k", 4)
        before = one.stats().remote_calls
        one.refund("k", 4)
        assert one.stats().remote_calls - before == 1
        assert one.hit("k").remaining == 99


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
def test_after_the_lease_has_been_given_back(server, algorithm):
    """Units spent from a lease that has ended are refunded in Redis."""
    with closing(limiter(server, lease_ttl=0.1, algorithm=algorithm)) as one:
        before = one.peek("k").remaining
        assert one.hit("k")
        eventually(lambda: one.stats().held > 0 or one.hit("k").source == "lease")
        spent = one.stats().allowed
        eventually(lambda: one.stats().held == 0)
        one.refund("k", spent)
        assert one.peek("k").remaining == before


@pytest.mark.parametrize("uses", [1, 3])
def test_units_in_a_lease_are_not_lost_with_it(server, uses):
    """A token that goes back into a lease about to end is given back before it ends."""
    with closing(limiter(server, lease_ttl=0.4)) as one:
        before = one.peek("k").remaining
        assert one.hit("k")
        for _ in range(uses):
            eventually(lambda: one.hit("k").source == "lease")
            time.sleep(0.05)
        one.refund("k", one.stats().allowed)
        eventually(lambda: one.stats().held == 0)
        assert one._ledger()[3] == 0  # none has expired
        assert one.peek("k").remaining == before


@pytest.mark.parametrize("refund", REFUNDS.values(), ids=REFUNDS)
@pytest.mark.parametrize("outage", ["killed", "silent"])
@pytest.mark.parametrize("mode", ["every_hit", "strict"])
def test_without_redis_it_is_an_error(outage, mode, refund):
    """Before the outage is known and after; calls that were admitted without Redis get their units back."""
    with PrivateRedis() as server, FaultProxy(server.port) as proxy:
        sync = RedisSync(f"redis://127.0.0.1:{proxy.port}", mode=mode, timeout=0.2, on_error="allow")
        with closing(Limiter("100/d", sync=sync)) as one:
            assert one.hit("k", 40)
            if outage == "killed":
                server.kill()
            else:
                proxy.become(Network(silent_down=True))
            with pytest.raises(ConnectionError, match="given back"):
                refund(one, "k", 40)
            with pytest.raises(ConnectionError, match="given back"):
                refund(one, "k", 40)
            assert one.stats().last_error
            eventually(lambda: one.hit("k", 3).source == "fallback")
            refund(one, "k", 3)


def test_share_gets_its_units_back():
    """Redis is away from the start: this process alone has decided."""
    sync = RedisSync("redis://127.0.0.1:1", timeout=0.1, max_outstanding=50)
    with closing(Limiter("100/s burst 100", sync=sync)) as one:
        eventually(lambda: one.hit("k", 20).allowed)
        one.refund("k", 20)
        assert one.hit("k", 20)
        assert one.hit("k", 0).source == "fallback"


def test_a_closed_limiter_says_so(server):
    one = limiter(server)
    assert one.hit("k", 5)
    one.close()
    with pytest.raises(ConnectionError, match="5 of 5 units"):
        one.refund("k", 5)
    one.refund("k", 0)


def test_nothing_is_gained(server):
    """A refund of more than was spent makes the key new at most, and leaves leased tokens debited."""
    with closing(limiter(server)) as one, closing(limiter(server)) as other:
        assert one.hit("k", 10)
        assert one.stats().held > 0
        other.refund("k", 1000)
        assert other.peek("k").remaining + one.stats().held <= 75
        other.refund("new", 5)
        assert other.peek("new").remaining == 75


def test_units_that_another_process_has_spent(server):
    """A process that has not used the key yet asks for its state first."""
    with (
        closing(limiter(server, mode="every_hit")) as one,
        closing(limiter(server, mode="every_hit")) as other,
    ):
        assert one.hit("k", 40)
        other.refund("k", 40)
        assert other.stats().remote_calls == 2
        assert one.peek("k").remaining == 100


def test_many_refunds_at_once(server):
    """Each is made once, from threads of several processes that change the key all the time."""
    limiters = [limiter(server, "100000/d", mode="every_hit", timeout=30.0) for _ in range(4)]

    def work(one: Limiter) -> None:
        for _ in range(50):
            assert one.hit("k", 3)
            one.refund("k", 2)

    threads = [threading.Thread(target=work, args=(one,)) for one in limiters for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = 100_000 - limiters[0].peek("k").remaining
    for one in limiters:
        one.close()
    assert 390 <= used <= 400


def test_a_refund_is_tried_until_no_other_comes_first(redis_server):
    """L6: its node has to know the latest refund of the key, and others make them meanwhile."""
    with redis.Redis(port=redis_server.port) as client:
        state, queue = CentralState(client, b"rl:k"), _CompletionQueue(-1)
        one, other = (
            Limiter("1000/d", clock=ManualClock(), sync=RedisSync("redis://localhost", mode="every_hit"))
            for _ in range(2)
        )
        now_us = 10 * DAY_US

        def exchange(node: Limiter) -> None:
            for request in node._collect():
                node._complete(request, state.run(request.body, now_us).numbers)

        for node in (one, other):
            node._submit("k", 200, queue, 1)
            exchange(node)
        assert one._submit_refund("k", 100, queue, 2) is None
        for _ in range(40):
            (request,) = one._collect()
            assert other._submit_refund("k", 1, queue, 3) is None
            for _ in range(2):  # the first time, the refund of `one` may have come before
                exchange(other)
            one._complete(request, state.run(request.body, now_us).numbers)
        exchange(one)
        outcomes = queue.take_all()

        assert [decision.allowed for call_id, decision in outcomes if call_id == 2] == [True]
        assert all(decision.allowed for _, decision in outcomes)


def test_a_refund_that_arrives_twice_counts_once(redis_server):
    """L5: also after its node's record has ended, and after another refund."""
    with redis.Redis(port=redis_server.port) as client:
        state, queue = CentralState(client, b"rl:k"), _CompletionQueue(-1)
        limiters = [
            Limiter("100/d", clock=ManualClock(), sync=RedisSync("redis://localhost", mode="every_hit"))
            for _ in range(2)
        ]
        now_us = 10 * DAY_US

        def exchange(one: Limiter) -> bytes:
            (request,) = one._collect()
            one._complete(request, state.run(request.body, now_us).numbers)
            return request.body

        for one in limiters:
            assert one._submit("k", 40, queue, 1) is None
            exchange(one)
        bodies = []
        for one in limiters:
            assert one._submit_refund("k", 10, queue, 2) is None
            while requests := one._collect():
                for request in requests:
                    bodies.append(request.body)
                    one._complete(request, state.run(request.body, now_us).numbers)
        outcomes = [decision.allowed for _, decision in queue.take_all()]
        assert outcomes == [True] * 4
        stored = state.stored()
        for wait_us in (0, 1_000_000, 3_600_000_000):
            for body in bodies:
                state.run(body, now_us + wait_us)
                assert state.stored() == stored


def test_a_refund_that_no_caller_waits_for_is_logged_when_lost(caplog):
    """With cold="optimistic" no call waits."""
    caplog.set_level(logging.WARNING, "hopgate_limiter")
    with PrivateRedis() as server, FaultProxy(server.port) as proxy:
        sync = RedisSync(
            f"redis://127.0.0.1:{proxy.port}", cold="optimistic", optimistic=9, max_outstanding=0, timeout=0.2
        )
        with closing(Limiter("10/d", sync=sync)) as one:
            assert one.hit("k", 9)
            with closing(limiter(server, "10/d", mode="every_hit")) as other:
                eventually(lambda: other.peek("k").remaining == 1)
                one.refund("k", 4)
                eventually(lambda: other.peek("k").remaining == 5)
            proxy.become(Network(silent_down=True))
            one.refund("k", 3)
            eventually(lambda: "LOST a refund of 3 units to the key 'rl:k'" in caplog.text)
