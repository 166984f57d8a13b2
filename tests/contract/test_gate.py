"""What every `Gate` promises: in the memory of one process, and shared through Redis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from app.adapters.gate_native import NativeGate
from app.ports import Policy
from tests.servers.hopgate import eventually
from tests.servers.redis import PrivateRedis

BURST = 80
UNASKED = BURST // 8
# So slow that nothing flows in while a test runs.
LIMITS = dict.fromkeys(Policy, f"{BURST}/d")


@pytest.fixture
def redis_url(redis_server: PrivateRedis) -> str:
    redis_server.flush()
    return redis_server.url


@pytest.fixture(params=["alone", pytest.param("shared", marks=pytest.mark.services)])
def gate(request: pytest.FixtureRequest) -> Iterator[NativeGate]:
    url = request.getfixturevalue("redis_url") if request.param == "shared" else None
    with contextlib.closing(NativeGate(LIMITS, redis_url=url)) as gate:
        yield gate


def exhaust(gate: NativeGate, policy: Policy, client: str) -> int:
    """Ask until nothing has been admitted for a while; return how much was."""
    admitted, silent_since = 0, time.monotonic()
    while time.monotonic() < silent_since + 0.3:
        if gate.admit(policy, client):
            admitted, silent_since = admitted + 1, time.monotonic()
        else:
            time.sleep(0.002)
    return admitted


@pytest.mark.parametrize("policy", Policy)
def test_the_limit_is_kept_and_told(gate: NativeGate, policy: Policy) -> None:
    admitted = exhaust(gate, policy, "198.51.100.7")

    # A part of a shared burst is held back for what may be out on lease.
    assert BURST // 2 <= admitted <= BURST + UNASKED
    refusal = gate.refusal(policy, "198.51.100.7")
    assert refusal.retry_after_s > 0
    assert int(refusal.headers["Retry-After"]) >= 1


def test_clients_and_policies_do_not_meet(gate: NativeGate) -> None:
    exhaust(gate, Policy.REDIRECT, "198.51.100.7")

    assert gate.admit(Policy.REDIRECT, "198.51.100.8")
    assert gate.admit(Policy.API, "198.51.100.7")


def test_one_network_of_ipv6_is_one_client(gate: NativeGate) -> None:
    exhaust(gate, Policy.CREATE, "2001:db8::1")

    assert not gate.admit(Policy.CREATE, "2001:db8::2")
    assert gate.admit(Policy.CREATE, "2001:db8:0:1::1")


@pytest.mark.parametrize("client", ["", "unix:", "[::1", "a" * 10_000, "\udcff"])
def test_every_client_is_counted(gate: NativeGate, client: str) -> None:
    assert gate.admit(Policy.REDIRECT, client)


def test_a_refund_counts_as_not_asked(gate: NativeGate) -> None:
    for _ in range(3 * BURST):
        assert gate.admit(Policy.NOT_FOUND, "198.51.100.7")
        gate.refund(Policy.NOT_FOUND, "198.51.100.7")


def test_asking_how_one_stands_counts_nothing(gate: NativeGate) -> None:
    for _ in range(3 * BURST):
        assert gate.refusal(Policy.API, "key").retry_after_s == 0
    assert gate.admit(Policy.API, "key")


@pytest.mark.services
def test_processes_share_one_limit(redis_url: str) -> None:
    gates = [NativeGate(LIMITS, redis_url=redis_url) for _ in range(3)]
    admitted = sum(exhaust(gate, Policy.REDIRECT, "198.51.100.7") for gate in gates)
    for gate in gates:
        gate.close()

    assert BURST // 2 <= admitted <= BURST + len(gates) * UNASKED


@pytest.mark.services
def test_without_redis_each_goes_on_at_its_share() -> None:
    # Nobody listens on port 1.
    with contextlib.closing(
        NativeGate(dict.fromkeys(Policy, "1000/s"), redis_url="redis://127.0.0.1:1")
    ) as gate:
        assert gate.admit(Policy.REDIRECT, "198.51.100.7")
        eventually(lambda: exhaust_for(gate, 0.2) > 20, what="the share is admitted")


def exhaust_for(gate: NativeGate, seconds: float) -> int:
    until, admitted = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        admitted += gate.admit(Policy.REDIRECT, "198.51.100.7")
    return admitted


def test_a_newcomer_is_not_refused_because_redis_is_away() -> None:
    limits = dict.fromkeys(Policy, "120/min burst 60")
    with contextlib.closing(NativeGate(limits, redis_url="redis://127.0.0.1:1")) as gate:
        gate.admit(Policy.CREATE, "first")
        time.sleep(0.1)  # by now it has been noticed
        for client in ("second", "third"):
            assert gate.admit(Policy.CREATE, client)
