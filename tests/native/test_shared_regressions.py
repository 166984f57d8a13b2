"""
Defects of other distributed rate limiters, one test each; see `test_native_regressions` for the rest.

Real threads, real time and a real Redis, which is stopped, slowed, emptied and misused. Times are bounds on
"for ever": nothing here measures speed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hopgate_limiter import Limiter, ManualClock, Rate, RedisSync
from hopgate_limiter._native import _CompletionQueue

from tests.native.central_state import CentralState
from tests.servers.proxy import SILENT, FaultProxy, Network
from tests.servers.redis import PrivateRedis

TIMEOUT_S = 0.1
# Three timeouts, and the scheduling delay of a busy machine.
LONGEST_S = 3 * TIMEOUT_S + 2.0
DAY_US = 86_400_000_000

# It gives Redis a tenth of a second.
pytestmark = pytest.mark.alone

Make = Callable[..., Limiter]


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def make(server: PrivateRedis) -> Iterator[Make]:
    """Make limiters that talk to the server; they are closed at the end."""
    made = []

    def make(
        rate: str | Rate = "1000/h", *, url: str | None = None, algorithm: str = "gcra", **sync: object
    ) -> Limiter:
        options: dict[str, object] = {"timeout": TIMEOUT_S, "lease_ttl": 1.0, **sync}
        limiter = Limiter(rate, algorithm=algorithm, sync=RedisSync(url or server.url, **options))  # type: ignore[arg-type]
        made.append(limiter)
        return limiter

    yield make
    for limiter in made:
        limiter.close()


def eventually(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def answered_in_time(limiter: Limiter, key: str = "k") -> bool:
    started = time.monotonic()
    allowed = limiter.hit(key).allowed
    assert time.monotonic() - started < LONGEST_S
    return allowed


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
def test_redis_state_lives_until_refilled(server, make, algorithm):
    """Classes 8 and 9: a lifetime rounded to 0, too short or never set (throttled-py, PostHog, upstash)."""
    # What Redis has is looked at, so it may take its time.
    options = {"algorithm": algorithm, "mode": "every_hit", "timeout": 5.0}
    limiter = make("1000/s", **options)
    assert limiter.hit("k", 1000)
    assert 1900 < server.command("PTTL", "rl:k") <= 1000 + 1100 + 1000
    slow = make("2/h", prefix="slow:", **options)
    assert slow.hit("k", 2)
    assert not slow.hit("k")
    assert server.command("PTTL", "slow:k") > 3_600_000


@pytest.mark.parametrize("back_us", [1, 1_000_000, 59_000_000])
def test_redis_clock_set_back(redis_server, back_us):
    """Class 12: a clock that goes back refills buckets, or counts as elapsed (nginx)."""

    clock = ManualClock()
    limiter = Limiter("10/d", clock=clock, sync=RedisSync("redis://localhost", mode="every_hit"))
    with redis.Redis(port=redis_server.port) as client:
        state = CentralState(client, b"rl:k")
        now_us = 10 * DAY_US

        def hit(cost: int) -> bool:
            queue = _CompletionQueue(-1)
            decision = limiter._submit("k", cost, queue, 1)
            if decision is None:
                (request,) = limiter._collect()
                limiter._complete(request, state.run(request.body, now_us).numbers)
                ((_, decision),) = queue.take_all()
            clock.advance(10**9)
            return decision.allowed

        assert hit(10)
        now_us -= back_us
        assert not hit(1)
        now_us += back_us + DAY_US // 10 - 1
        assert not hit(1)
        now_us += 1
        clock.advance(DAY_US * 1000)
        assert hit(1)


def test_retry_after_of_redis(make):
    """Class 14: a wait rounded down to 0 makes all clients retry at once (tower-governor, Losant)."""
    limiter = make("10/s burst 1", mode="every_hit")
    assert limiter.hit("k")
    refused = limiter.hit("k")
    assert 0.0 < refused.retry_after <= 0.1
    assert refused.headers()["Retry-After"] == "1"
    time.sleep(refused.retry_after)
    assert limiter.hit("k")


@pytest.mark.parametrize("mode", ["strict", "leased", "every_hit"])
def test_remaining_can_be_spent(make, mode):
    """Class 15: remaining that is off, so that a call which should fit is refused (upstash, gubernator)."""
    limiter = make("100/h", mode=mode)
    assert limiter.peek("k").remaining == limiter.hit("other", 1000).remaining > 0
    for cost in (1, 1, 7, 1, 3):
        before = limiter.hit("k", cost)
        assert before
        assert 0 < before.remaining < 100
    time.sleep(0.2)
    left = limiter.peek("k").remaining
    assert limiter.hit("k", left)
    refused = limiter.hit("k")
    assert not refused
    assert refused.remaining == 0


def test_every_token_is_accounted_once(make):
    """Class 17: counts lost or doubled between nodes and owner (gubernator, Kong, elastic)."""
    limiters = [make("400/d") for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        hits = [pool.submit(limiters[i % 3].allow, "k") for i in range(1200)]
        assert sum(hit.result() for hit in hits) <= 400
    for limiter in limiters:
        limiter.close()
        granted, spent, returned, expired = limiter._ledger()
        assert granted == spent + returned + expired
    # Unspent tokens have come back: one more node gets all of them, except those that close could not return.
    spent = sum(limiter.stats().allowed for limiter in limiters)
    expired = sum(limiter._ledger()[3] for limiter in limiters)
    assert make("400/d").peek("k").remaining >= 300 - spent - expired
    assert spent <= 400
    rest = 0
    last = make("400/d", mode="strict")
    while last.allow("k"):
        rest += 1
    assert spent + rest + expired <= 400


def test_ambiguous_replies_are_not_repeated(server, make):
    """Class 18: a command repeated after a timeout counts twice (rate-limit-redis #251)."""
    with FaultProxy(server.port) as proxy:
        limiter = make(
            "10/d", url=f"redis://127.0.0.1:{proxy.port}", mode="every_hit", on_error="deny", timeout=0.3
        )
        assert limiter.hit("k", 2)
        proxy.become(Network(silent_down=True))
        assert not limiter.hit("k", 3)  # run, but without a reply
        proxy.become(Network())
        eventually(lambda: limiter.hit("other").source == "redis")
    fresh = make("10/d", mode="every_hit")
    assert not fresh.hit("k", 6)
    assert fresh.hit("k", 5)


def test_script_forgotten_by_redis(server, make):
    """Class 18: NOSCRIPT after a failover takes the limiter down (Pyrate #182), or admits everything."""
    limiter = make("20/d", mode="every_hit", on_error="deny")
    assert limiter.hit("k")
    for _ in range(5):
        server.command("SCRIPT", "FLUSH")
        assert limiter.hit("k").source == "redis"
    assert limiter.stats().redis_errors == 0


def test_one_key_per_limit(server, make):
    """Class 19: several keys, or keys not named as such, break in a cluster (upstash, shenyu)."""
    limiter = Limiter("10/s; 100/h; 500/d", sync=RedisSync(server.url, timeout=TIMEOUT_S))
    assert limiter.hit("{user}:k")
    limiter.close()
    assert set(server.command("KEYS", "*")) - {b"rl:\0nodes"} == {b"rl:{user}:k"}


@pytest.mark.parametrize("on_error", ["deny", "allow", "share"])
@pytest.mark.parametrize("outage", ["killed", "paused"])
def test_store_down(server, make, outage, on_error):
    """Class 20: an unreachable store is an exception, a hang, or a burst per process (slowapi, fides)."""
    limiter = make("1000/h burst 100", on_error=on_error)
    assert answered_in_time(limiter)
    getattr(server, {"killed": "kill", "paused": "pause"}[outage])()
    admitted = 0
    for i in range(40):
        admitted += answered_in_time(limiter, f"{i % 4}")
    if on_error == "allow":
        assert admitted == 40
    elif on_error == "deny":
        assert admitted == 0
    else:
        assert admitted <= 4 + 4
    if outage == "killed":
        server.start()
    else:
        server.resume()
    # It recovers by itself: first Redis decides, then it grants leases again.
    eventually(lambda: limiter.hit("new").source in ("redis", "lease"))
    eventually(lambda: limiter.hit("busy").source == "lease")
    assert limiter.stats().redis_errors > 0


def test_slow_store(server, make):
    """Class 20: a store slower than the timeout: no call waits longer than three timeouts."""
    with FaultProxy(server.port) as proxy:
        limiter = make("1000/h", url=f"redis://127.0.0.1:{proxy.port}", on_error="deny")
        assert answered_in_time(limiter)
        proxy.become(Network(latency_s=5 * TIMEOUT_S))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: answered_in_time(limiter, f"slow{i % 8}"), range(16)))
        proxy.become(SILENT)
        assert not answered_in_time(limiter, "silent")
        proxy.become(Network())
        proxy.reset()
        eventually(lambda: limiter.hit("again").source in ("redis", "lease"))


@pytest.mark.parametrize(
    "misuse",
    [("RPUSH", "rl:bad", "x"), ("SET", "rl:bad", b"\x94\x01\x02\x03\x04"), ("SET", "rl:bad", b"\x96\x01")],
)
def test_unserviceable_key_affects_no_other_key(server, make, misuse):
    """Class 20: one bad key must not mark Redis as down."""
    limiter = make("1000/h", on_error="deny")
    assert limiter.hit("good")
    server.command(*misuse)
    for i in range(20):
        assert answered_in_time(limiter, "bad") in (True, False)
        assert limiter.hit(f"good{i}").source in ("redis", "lease")
    server.command("DEL", "rl:bad")
    eventually(lambda: limiter.hit("bad").allowed)


def test_out_of_memory_and_passwords(server, make):
    """Class 20: error replies of the server count as failures, and end with their cause."""
    limiter = make("1000/h", on_error="deny")
    assert limiter.hit("k")
    server.config_set("maxmemory", "1")
    eventually(lambda: not answered_in_time(limiter, "new"))
    server.config_set("maxmemory", "0")
    eventually(lambda: limiter.hit("new2").allowed)

    server.command("ACL", "SETUSER", "app", "on", ">secret", "~rl:*", "+@all")
    good = make("10/h", url=f"redis://app:secret@127.0.0.1:{server.port}", on_error="deny")
    assert good.hit("acl").source == "redis"
    wrong = make("10/h", url=f"redis://app:guess@127.0.0.1:{server.port}", on_error="deny")
    assert not answered_in_time(wrong)
    elsewhere = make("10/h", url=f"redis://app:secret@127.0.0.1:{server.port}", prefix="no:", on_error="deny")
    assert not answered_in_time(elsewhere)


def test_refused_clients_do_not_reach_redis(make):
    """Class 21: refused clients keep calling the store, all at once (envoy, attack traffic)."""
    limiter = make("5/d", mode="every_hit")
    assert sum(limiter.allow("k") for _ in range(5)) == 5
    assert not limiter.allow("k")
    before = limiter.stats().remote_calls
    assert not any(limiter.allow("k") for _ in range(1000))
    assert limiter.stats().remote_calls - before <= 10


def test_one_request_serves_many_callers(make):
    """Class 21: every caller of a cold key sends its own request."""
    limiter = make("100000/h")
    barrier = threading.Barrier(16)

    def call() -> bool:
        barrier.wait()
        return limiter.allow("k")

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: call(), range(16)))
    assert limiter.stats().remote_calls < 16


def test_reconfiguration_through_redis(make):
    """Class 22: a new period resets the units spent, or counts them as time (gubernator, redisson)."""
    limiter = make("10/h", mode="every_hit")
    assert limiter.hit("k", 10)
    for spec in ("10/min", "10/d", "10/h") * 5:
        limiter.configure(spec)
        assert not limiter.hit("k", 2)


def test_tokens_returned_elsewhere_are_leased(make):
    """Class 23: tokens that another node gives back stay unavailable to a client refused meanwhile."""
    first, second = make("10/d", max_outstanding=5), make("10/d", max_outstanding=5)
    assert first.hit("k")
    eventually(lambda: first.stats().held > 0)
    while second.hit("k").source != "negative-cache":
        pass
    first.close()
    eventually(lambda: second.hit("k").allowed)


def test_large_costs_are_not_starved_by_leases(make):
    """Class 23: a large cost never fits because small ones have taken the tokens (aiolimiter)."""
    limiter = make("20/d", max_outstanding=10)
    assert limiter.hit("k")
    eventually(lambda: limiter.stats().held > 0)
    assert limiter.hit("k", 9)


def test_grant_after_close_is_given_back(redis_server):
    """A grant that arrives after close is given back, so that other nodes need not wait for its expiry."""

    with redis.Redis(port=redis_server.port) as client:
        state, now_us = CentralState(client, b"rl:k"), DAY_US
        limiter = Limiter("1000/d", clock=ManualClock(), sync=RedisSync("redis://localhost"))
        queue = _CompletionQueue(-1)
        assert limiter._submit("k", 1, queue, 1) is None
        (request,) = limiter._collect()

        limiter.close()
        limiter._complete(request, state.run(request.body, now_us).numbers)
        assert limiter.stats().held > 0
        (request,) = limiter._collect()
        limiter._complete(request, state.run(request.body, now_us).numbers)

        assert limiter.stats().held == 0
        assert sum(held for _, held in state.leases().values()) == 0
        assert limiter._collect() == []


def test_lost_redis_state_is_restored(redis_server):
    """L12: a node that has seen the lost state restores it in Redis; then no unit is admitted twice."""

    with redis.Redis(port=redis_server.port) as client:
        state, now_us = CentralState(client, b"rl:k"), DAY_US
        clock = ManualClock()
        limiters = [
            Limiter("10/d", clock=clock, sync=RedisSync("redis://localhost", mode="every_hit"))
            for _ in range(3)
        ]

        def hit(which: int) -> bool:
            queue = _CompletionQueue(-1)
            limiter = limiters[which]
            if (decision := limiter._submit("k", 1, queue, 1)) is not None:
                return decision.allowed
            (request,) = limiter._collect()
            limiter._complete(request, state.run(request.body, now_us).numbers)
            return queue.take_all()[0][1].allowed

        assert hit(2)
        old = state.stored()
        assert all(hit(i) for i in (0, 1, 0, 1, 0, 1))
        state.restore(old)
        assert hit(0)  # has seen 6 of 7
        assert hit(1)
        assert [hit(0), hit(1), hit(2)].count(True) <= 2

        state.restore(None)
        clock.advance(10**9)  # the refused clients try again
        assert not hit(1)
        assert not hit(0)
