"""`RateLimiter`: the contract, counted in one process and shared through Redis."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest
from hopgate_limiter import Rate

from app.adapters.native_limiter import NativeRateLimiter, read_own_rate
from app.ports import Counted, Policy
from tests.servers.hopgate import eventually
from tests.servers.redis import PrivateRedis

BURST = 80
UNLEASED = BURST // 8
# So slow that no token is refilled during a test.
LIMITS = dict.fromkeys(Policy, f"{BURST}/d")


@pytest.fixture
def redis_url(redis_server: PrivateRedis) -> str:
    redis_server.flush()
    return redis_server.url


@pytest.fixture(params=["alone", pytest.param("shared", marks=pytest.mark.services)])
def limiter(request: pytest.FixtureRequest) -> Iterator[NativeRateLimiter]:
    url = request.getfixturevalue("redis_url") if request.param == "shared" else None
    with contextlib.closing(NativeRateLimiter(LIMITS, redis_url=url)) as limiter:
        yield limiter


def exhaust(limiter: NativeRateLimiter, policy: Policy, *clients: str) -> int:
    """Send requests of all *clients* in turn until none is admitted for a while; return how many were."""
    turn = itertools.cycle(clients)
    admitted, last_admitted = 0, time.monotonic()
    while time.monotonic() < last_admitted + 0.3:
        if limiter.admit(policy, next(turn)):
            admitted, last_admitted = admitted + 1, time.monotonic()
        else:
            time.sleep(0.002)
    return admitted


@pytest.mark.parametrize("policy", Policy)
def test_limit_is_kept_and_reported(limiter: NativeRateLimiter, policy: Policy) -> None:
    admitted = exhaust(limiter, policy, "198.51.100.7")

    # Of a shared burst, what may be leased to other processes is held back.
    assert BURST // 2 <= admitted <= BURST + UNLEASED
    refusal = limiter.refusal(policy, "198.51.100.7")
    assert refusal.retry_after_s > 0
    assert int(refusal.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("rate", ["20/d", "3/d burst 5", "1/365d", "1000000000/s", "1/s burst 1000000000"])
def test_client_has_a_rate_of_its_own(limiter: NativeRateLimiter, rate: str) -> None:
    """It replaces the policy's, and concerns no other client."""
    text = read_own_rate(rate)
    most, admitted, until = min(40, Rate.parse(text)[0].burst), 0, time.monotonic() + 5
    while admitted < most and time.monotonic() < until:
        admitted += limiter.admit(Policy.API, "key", rate=text)
        time.sleep(0.002)

    assert admitted >= max(1, most // 2)
    if most < 40:
        more = [limiter.admit(Policy.API, "key", rate=text) for _ in range(100)]
        assert sum(more) + admitted <= most + UNLEASED
        assert limiter.refusal(Policy.API, "key", rate=text).retry_after_s > 0
    assert limiter.admit(Policy.API, "other", rate="1/d")
    assert limiter.admit(Policy.API, "key")
    assert limiter.counted(Policy.API).admitted >= admitted


@pytest.mark.parametrize(
    "text", ["", "often", "1/s; 5/m", "10/s sliding_window", "1000000001/s", "1/s burst 1000000001", "1/367d"]
)
def test_rate_of_a_key_is_one_that_every_limiter_takes(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        read_own_rate(text)


def test_decisions_are_counted(limiter: NativeRateLimiter) -> None:
    admitted = exhaust(limiter, Policy.CREATE, "one", "other")

    counted = limiter.counted(Policy.CREATE)
    assert (counted.admitted, counted.clients) == (admitted, 2)
    assert counted.refused > 0
    assert limiter.counted(Policy.REDIRECT) == Counted(0, 0)


@pytest.mark.services
def test_leased_tokens_are_counted(redis_url: str) -> None:
    with contextlib.closing(NativeRateLimiter(LIMITS, redis_url=redis_url)) as limiter:
        assert limiter.counted(Policy.CREATE).leased == 0

        def has_a_lease() -> bool:
            limiter.admit(Policy.CREATE, "busy")
            return limiter.counted(Policy.CREATE).leased > 0

        eventually(has_a_lease, what="a lease")


def test_clients_and_policies_are_independent(limiter: NativeRateLimiter) -> None:
    exhaust(limiter, Policy.REDIRECT, "198.51.100.7")

    assert limiter.admit(Policy.REDIRECT, "198.51.100.8")
    assert limiter.admit(Policy.API, "198.51.100.7")


def test_ipv6_network_is_one_client(limiter: NativeRateLimiter) -> None:
    exhaust(limiter, Policy.CREATE, "2001:db8::1")

    assert not limiter.admit(Policy.CREATE, "2001:db8::2")
    assert limiter.admit(Policy.CREATE, "2001:db8:0:1::1")


@pytest.mark.parametrize("client", ["", "unix:", "[::1", "a" * 10_000, "\udcff"])
def test_client_of_any_form_is_counted(limiter: NativeRateLimiter, client: str) -> None:
    assert limiter.admit(Policy.REDIRECT, client)


def test_refund_restores_the_limit(limiter: NativeRateLimiter) -> None:
    for _ in range(3 * BURST):
        assert limiter.admit(Policy.NOT_FOUND, "198.51.100.7")
        limiter.refund(Policy.NOT_FOUND, "198.51.100.7")


def test_refusal_query_counts_nothing(limiter: NativeRateLimiter) -> None:
    for _ in range(3 * BURST):
        assert limiter.refusal(Policy.API, "key").retry_after_s == 0
    assert limiter.admit(Policy.API, "key")


@pytest.mark.services
def test_processes_share_one_limit(redis_url: str) -> None:
    limiters = [NativeRateLimiter(LIMITS, redis_url=redis_url) for _ in range(3)]
    admitted = sum(exhaust(limiter, Policy.REDIRECT, "198.51.100.7") for limiter in limiters)
    for limiter in limiters:
        limiter.close()

    assert BURST // 2 <= admitted <= BURST + len(limiters) * UNLEASED


@pytest.mark.services
def test_redis_outage_leaves_each_process_its_share() -> None:
    # No server listens on port 1.
    with contextlib.closing(
        NativeRateLimiter(dict.fromkeys(Policy, "1000/s"), redis_url="redis://127.0.0.1:1")
    ) as limiter:
        assert limiter.admit(Policy.REDIRECT, "198.51.100.7")
        eventually(lambda: exhaust_for(limiter, 0.2) > 20, what="the share is admitted")


def exhaust_for(limiter: NativeRateLimiter, seconds: float) -> int:
    until, admitted = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        admitted += limiter.admit(Policy.REDIRECT, "198.51.100.7")
    return admitted


def test_redis_outage_admits_new_clients() -> None:
    limits = dict.fromkeys(Policy, "120/min burst 60")
    with contextlib.closing(NativeRateLimiter(limits, redis_url="redis://127.0.0.1:1")) as limiter:
        limiter.admit(Policy.CREATE, "first")
        time.sleep(0.1)  # for the outage to be detected
        for client in ("second", "third"):
            assert limiter.admit(Policy.CREATE, client)


@pytest.mark.parametrize("policy", [Policy.REDIRECT, Policy.NOT_FOUND, Policy.ANONYMOUS])
def test_ipv6_48_has_the_budget_of_four(limiter: NativeRateLimiter, policy: Policy) -> None:
    admitted = exhaust(limiter, policy, *(f"2001:db8:9:{n:x}::1" for n in range(1, 20 * BURST)))

    assert 2 * BURST <= admitted <= 4 * (BURST + UNLEASED)
    assert limiter.refusal(policy, "2001:db8:9:ffff::1").retry_after_s > 0
    assert limiter.admit(policy, "2001:db8:a::1")
    assert limiter.admit(policy, "198.51.100.7")


def test_refused_ipv6_network_costs_its_48_nothing() -> None:
    """One /64 that is over its limit takes nothing from the others of its /48."""
    with contextlib.closing(NativeRateLimiter(LIMITS)) as limiter:
        for _ in range(20 * BURST):
            limiter.admit(Policy.REDIRECT, "2001:db8:9:1::1")

        assert sum(limiter.admit(Policy.REDIRECT, "2001:db8:9:2::1") for _ in range(BURST)) == BURST
        assert limiter.counted(Policy.REDIRECT).admitted >= 2 * BURST


def test_ipv6_refund_restores_both_limits() -> None:
    with contextlib.closing(NativeRateLimiter(LIMITS)) as limiter:
        for n in range(20 * BURST):
            assert limiter.admit(Policy.NOT_FOUND, f"2001:db8:9:{n:x}::1")
            limiter.refund(Policy.NOT_FOUND, f"2001:db8:9:{n:x}::1")
