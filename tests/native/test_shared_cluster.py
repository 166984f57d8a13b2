"""Limits shared through a Redis Cluster, and through TLS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hopgate_limiter import Limiter, RedisSync
from redis.crc import key_slot

from tests.servers.certificates import Authority
from tests.servers.ports import free_ports
from tests.servers.redis import PrivateRedis
from tests.servers.redis_cluster import SLOTS, PrivateCluster

Cluster = list[PrivateRedis]


def eventually(is_so: Callable[[], bool], within_s: float = 30.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three servers with a third of the slots each; the others continue when one is gone."""
    with PrivateCluster() as cluster:
        yield cluster.nodes


@pytest.fixture
def limiter(cluster: Cluster) -> Iterator[Limiter]:
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    sync = RedisSync(url, timeout=0.2, on_error="deny", mode="every_hit")
    with closing(Limiter("1000/d", sync=sync)) as limiter:
        yield limiter


def key_of(node: int, but: str = "") -> str:
    """Find a key of the given server."""
    slots = range(node * SLOTS // 3, (node + 1) * SLOTS // 3)
    return next(f"k{i}" for i in range(10_000) if key_slot(f"rl:k{i}".encode()) in slots and f"k{i}" != but)


def test_every_server_decides_its_keys(cluster, limiter):
    assert {d.source for d in limiter.hit_many([(f"k{i}", 1) for i in range(200)])} == {"redis"}
    assert all(node.command("DBSIZE") > 30 for node in cluster)
    assert limiter.stats().redis_errors == 0


def test_moved_slots_are_followed(cluster, limiter):
    """MOVED: another server has the key from now on, with the units spent."""
    key = key_of(0)
    slot = key_slot(f"rl:{key}".encode())
    assert limiter.hit(key, 990)
    source, target = cluster[0], cluster[1]
    ids = [node.command("CLUSTER", "MYID") for node in cluster]
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    assert limiter.hit(key, 1).source == "redis"  # still there

    source.command("MIGRATE", "127.0.0.1", target.port, f"rl:{key}", 0, 1000)
    asked = limiter.hit(key, 2)  # ASK: for now
    assert (asked.allowed, asked.source) == (True, "redis")

    for node in cluster[:2]:
        node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    moved = limiter.hit(key, 3)
    assert (moved.allowed, moved.source) == (True, "redis")
    assert not limiter.hit(key, 5)
    assert limiter.stats().redis_errors == 0


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_lost_server_affects_only_its_keys(cluster, limiter, fault, lost):
    keys = [key_of(node) for node in range(3)]
    assert all(limiter.hit(key) for key in keys)
    getattr(cluster[lost], fault)()
    limiter.hit(keys[lost])
    time.sleep(0.5)
    for _ in range(30):
        for node, key in enumerate(keys):
            decision = limiter.hit(key)
            assert decision.source == ("fallback" if node == lost else "redis"), node
        time.sleep(0.05)  # over two heartbeats
    if fault == "pause":
        cluster[lost].resume()
        eventually(lambda: limiter.hit(keys[lost]).source == "redis")


@pytest.fixture
def certificates(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_tls(certificates, monkeypatch):
    (port,) = free_ports(1)
    tls = [
        "--tls-port",
        str(port),
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        str(certificates.certificate()),
    ]
    tls += [
        "--tls-key-file",
        str(certificates.key),
        "--tls-ca-cert-file",
        str(certificates.authority),
    ]
    with PrivateRedis(*tls):
        url = f"rediss://localhost:{port}"

        def decided_by(url: str) -> str:
            with closing(Limiter("10/d", sync=RedisSync(url, timeout=1.0, on_error="deny"))) as limiter:
                return limiter.hit("k").source

        assert decided_by(url) == "fallback"  # no trusted certificate signs it
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        assert decided_by(url) == "redis"
        assert decided_by(f"rediss://127.0.0.1:{port}") == "redis"
