"""What was admitted without asking, and who found no room: decided by hand, against Redis's own script."""

from __future__ import annotations

import pytest
import redis
from hopgate_limiter import Limiter, ManualClock, RedisSync
from hopgate_limiter._native import _Mailbox

from tests.native.carrier import CentralState

DAY_US = 86_400_000_000


@pytest.mark.parametrize("cold", ["sync", "optimistic"])
def test_whoever_finds_no_room_is_decided_about_all_the_same(redis_server, cold):
    """Every part of a full table asks Redis about its overflow, each under a key of its own."""
    with redis.Redis(port=redis_server.port) as client:
        clock, now_us = ManualClock(), DAY_US
        sync = RedisSync("redis://localhost", cold=cold)
        limiter = Limiter("1000/d", max_keys=16, clock=clock, sync=sync)
        mailbox, states, answers = _Mailbox(-1), {}, {}

        def exchange() -> None:
            while parcels := limiter._collect():
                assert len({parcel.key for parcel in parcels}) == len(parcels)
                for parcel in parcels:
                    if parcel.key not in states:
                        states[parcel.key] = CentralState(client, parcel.key)
                    limiter._deliver(parcel, states[parcel.key].run(parcel.body, now_us).numbers)
            answers.update(mailbox.take_all())

        for ticket in range(100):
            decision = limiter._submit(f"client{ticket}", 1, mailbox, ticket)
            if decision is not None:
                answers[ticket] = decision
            exchange()

        assert limiter.stats().keys <= 16 + 16
        assert limiter.stats().overflowed >= 84
        assert sorted(answers) == list(range(100))
        assert all(answers.values())
        overflows = {key for key in states if key.startswith(b"rl:\0overflow")}
        assert 1 < len(overflows) <= 16


@pytest.mark.parametrize(("nodes", "optimistic"), [(1, 100), (10, 10)])
def test_debts_larger_than_redis_takes_at_once_stay_owed(redis_server, nodes, optimistic):
    """What is admitted unasked is debited to the last unit, however long that takes."""
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
                for parcel in limiter._collect():
                    limiter._deliver(parcel, state.run(parcel.body, now_us).numbers)
                # Redis knows of a part and the process of the rest: nothing is asked over and over.
                assert limiter._collect() == []
            admitted += calls()
            assert admitted <= 10 + 10 * seconds + 100
            clock.advance(10**9)
            now_us += 1_000_000
        assert admitted >= 10 * 59


def test_a_debt_that_redis_does_not_take_keeps_nobody_from_closing(redis_server):
    with redis.Redis(port=redis_server.port) as client:
        state = CentralState(client, b"rl:k")
        sync = RedisSync("redis://localhost", cold="optimistic", optimistic=100)
        limiter = Limiter("10/s", clock=ManualClock(), sync=sync)
        assert all(limiter.allow("k") for _ in range(100))
        limiter.close()
        (parcel,) = limiter._collect()
        limiter._deliver(parcel, state.run(parcel.body, DAY_US).numbers)
        assert limiter._collect() == []
