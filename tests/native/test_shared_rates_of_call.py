"""Rates given to one call of shared limits: all processes keep them together, as the limiter's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from hopgate_limiter import CostTooLargeError, Limiter, ManualClock, Rate, RedisSync

from tests.native.central_state import read_request
from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.alone

MODES = pytest.mark.parametrize("mode", ["every_hit", "strict", "leased"])
OWN = "40/d"


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture(autouse=True)
def client(server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def limiter(server: PrivateRedis, rates: str = "8/d", algorithm: str = "gcra", **sync: object) -> Limiter:
    options: dict[str, object] = {"timeout": 1.0, "mode": "every_hit", **sync}
    made = RedisSync(server.url, **options)  # type: ignore[arg-type]
    return Limiter(rates, algorithm=algorithm, sync=made)  # type: ignore[arg-type]


def spend(*limiters: Limiter, key: str = "k", rates: str | None = OWN) -> int:
    """Hit in turn until all refuse; return the units admitted."""
    admitted, refused = 0, 0
    while refused < 40:
        for each in limiters:
            if each.allow(key, rates=rates):
                admitted, refused = admitted + 1, 0
            else:
                refused += 1
    return admitted


@MODES
@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
def test_processes_keep_them_together(server, mode, algorithm):
    with (
        closing(limiter(server, algorithm=algorithm, mode=mode)) as one,
        closing(limiter(server, algorithm=algorithm, mode=mode)) as other,
    ):
        bound = 40 + (10 if mode == "leased" else 0)
        assert 20 <= spend(one, other) <= bound
        assert spend(one, other, key="other", rates=None) <= 8 + (2 if mode == "leased" else 0)


def test_exactly_with_every_hit(server):
    with closing(limiter(server)) as one, closing(limiter(server)) as other:
        assert spend(one, other) == 40
        assert spend(one, other, key="other", rates=None) == 8


async def test_every_call_takes_them(server):
    with closing(limiter(server)) as one:
        own = [Rate(10, "d", name="gold")]
        assert one.allow("k", rates=own)
        assert one.hit("k", rates=own).remaining == 8
        decision = await one.hit_async("k", rates=own)
        assert (decision.policy, decision.remaining, decision.source) == ("gold", 7, "redis")
        assert one.acquire("k", timeout=0, rates=own).remaining == 6
        assert (await one.acquire_async("k", timeout=0, rates=own)).remaining == 5
        with one.slot("k", timeout=0, rates=own):
            pass
        assert one.peek("k", rates=own).remaining == 4
        assert (await one.peek_async("k", rates=own)).remaining == 4
        one.refund("k", 2, rates=own)
        await one.refund_async("k", 1, rates=own)
        assert one.peek("k", rates=own).remaining == 7
        assert not one.hit("k", 8, rates=own)


def test_another_process_sees_what_is_left(server):
    with closing(limiter(server)) as one, closing(limiter(server)) as other:
        assert one.hit("k", 30, rates=OWN)
        assert other.peek("k", rates=OWN).remaining == 10
        one.refund("k", 5, rates=OWN)
        assert other.hit("k", rates=OWN).remaining == 14


async def test_many_keys_with_plans_at_once(server):
    plans = {"free": "3/d", "pro": "5/d", "max": "7/d"}
    with closing(limiter(server)) as one:
        calls = [
            one.hit_async((plan, number), rates=rates)
            for _ in range(8)
            for number in range(10)
            for plan, rates in plans.items()
        ]
        decisions = await asyncio.gather(*calls)
        assert sum(bool(decision) for decision in decisions) == 10 * (3 + 5 + 7)


def test_waiting_ends_when_they_allow(server):
    with closing(limiter(server, rates="1/d")) as one:
        assert one.hit("k", rates="20/s burst 1")
        assert one.acquire("k", rates="20/s burst 1", timeout=5)
        with pytest.raises(CostTooLargeError):
            one.acquire("k", 2, rates="20/s burst 1")


def test_keys_are_not_taken_for_those_of_others(server):
    """A limiter with other rates under the prefix is a fault of a setting; a call with other rates is not."""
    with closing(limiter(server)) as one, closing(limiter(server)) as other:
        assert one.hit("k", 5, rates=OWN)
        assert other.hit("k", 5, rates=OWN)
        assert one.stats().last_error is None
        assert other.stats().last_error is None


@pytest.mark.parametrize(
    ("rates", "error", "message"),
    [
        ("5/h; 6/h", ValueError, "rates must be as many as the limiter has, 1, got 2"),
        ("5/40 years", OverflowError, "years"),
        ([], ValueError, "at least one rate"),
    ],
)
def test_refused(server, rates, error, message):
    with closing(limiter(server)) as one:
        many = lambda key, rates: one.hit_many([(key, 1)], rates=rates)  # noqa: E731
        for call in (one.allow, one.hit, one.peek, one.refund, one.acquire, many):
            with pytest.raises(error, match=message):
                call("k", rates=rates)
        assert one.stats().keys == 0


def test_windows_keep_their_periods(server):
    with (
        closing(limiter(server, algorithm="sliding_window")) as one,
        pytest.raises(ValueError, match="must keep the limiter's periods"),
    ):
        one.hit("k", rates="5/min")


def test_without_redis_they_decide_the_share():
    """Of a limit of one, a burst of hundred is seen to be another."""
    sync = RedisSync("redis://127.0.0.1:1", timeout=0.02, on_error="share")
    with closing(Limiter("1/d", sync=sync)) as one:
        clock_free = "1000000/s burst 1000"
        assert not one.hit("own", rates="1/d")
        assert any(one.hit("k", rates=clock_free) for _ in range(100))
        assert one.peek("k", rates=clock_free).limit == 1_000_000


def test_request_carries_the_rates_of_its_key():
    sync = RedisSync("redis://127.0.0.1:1", mode="leased", cold="optimistic")
    one = Limiter("1/h", clock=ManualClock(10**18), sync=sync)
    one.hit("a", rates="7/h")
    one.hit("b")
    one.hit("c", rates="9/h")
    capacities = {request.key: read_request(request.body)["rates"][0][1] for request in one._collect()}
    assert capacities == {b"rl:a": 7, b"rl:b": 1, b"rl:c": 9}


def test_rates_may_change_from_call_to_call(server):
    """As a customer who has bought another plan: what is spent stays spent."""
    with closing(limiter(server)) as one, closing(limiter(server)) as other:
        assert one.hit("k", 10, rates="10/d")
        assert not other.hit("k", rates="10/d")
        assert other.hit("k", rates="100/d").limit == 100
        assert 85 <= other.peek("k", rates="100/d").remaining <= 90
        assert one.hit("k", rates="100/d").limit == 100
        assert not one.hit("k")


def test_threads_with_plans(server):
    with closing(limiter(server, mode="strict")) as one:
        admitted: list[int] = []

        def work(rates: str) -> None:
            admitted.append(sum(one.allow(rates, rates=rates) for _ in range(60)))

        workers = [
            threading.Thread(target=work, args=[f"{limit}/d"]) for limit in (8, 16, 32) for _ in range(3)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert 3 * 8 // 2 <= sum(admitted) <= 8 + 16 + 32


@MODES
def test_many_at_once(server, mode):
    with closing(limiter(server, mode=mode)) as one, closing(limiter(server, mode=mode)) as other:
        decisions = one.hit_many([(key, 1) for key in "abcab"], rates=OWN)
        assert all(decisions)
        assert {decision.limit for decision in decisions} == {40}
        assert other.hit("a", rates=OWN).remaining <= 37


def test_slots_are_refused_as_without_them(server):
    with closing(limiter(server)) as one, pytest.raises(ValueError, match="not for limits shared"):
        one.reserve("k", rates=OWN)
