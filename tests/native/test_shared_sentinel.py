"""Limits shared through the primary that Redis Sentinels name, before and after a failover."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hopgate_limiter import Limiter, RedisSync

from tests.servers.ports import free_ports
from tests.servers.redis_sentinel import PrivateSentinels

pytestmark = pytest.mark.alone


@pytest.fixture
def site() -> Iterator[PrivateSentinels]:
    with PrivateSentinels() as site:
        yield site


def eventually(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_failover_is_followed(site, fault):
    """The limit is kept over a failover: what the old primary has debited stays debited."""
    sync = RedisSync(site.url, mode="every_hit", on_error="deny", timeout=0.2, require=True)
    with closing(Limiter("20/d", sync=sync)) as limiter:
        assert {limiter.hit("k").source for _ in range(15)} == {"redis"}
        old = site.primary
        getattr(old, fault)()

        assert limiter.hit("k").source == "fallback"
        new = site.await_another(old)
        eventually(lambda: limiter.hit("new").source == "redis", within_s=5)

        later = [limiter.hit("k") for _ in range(10)]
        assert sum(decision.allowed for decision in later) <= 5
        assert new.command("EXISTS", "rl:k") == 1
        if fault == "pause":
            old.resume()
            assert limiter.hit("new").source == "redis"


def test_sentinels_are_asked_in_turn(site):
    """One that is gone, one that is silent, and one that answers."""
    (gone,) = free_ports(1)
    site.sentinels[0].pause()
    url = site.url_of(gone, site.sentinels[0].port, site.sentinels[1].port)
    with closing(Limiter("20/d", sync=RedisSync(url, timeout=0.3, on_error="deny"))) as limiter:
        limiter.ping()
        eventually(lambda: limiter.hit("k").source in {"redis", "lease"})
    site.sentinels[0].resume()


def test_a_replica_is_not_taken_for_the_primary(site):
    """A sentinel that was cut off names the server that was the primary before."""
    stale = site.sentinels[0]
    with closing(Limiter("20/d", sync=RedisSync(site.url_of(stale.port), timeout=0.3))) as limiter:
        limiter.ping()
        for sentinel in site.sentinels:
            sentinel.pause()
        old, new = site.servers
        new.command("REPLICAOF", "NO", "ONE")
        old.command("REPLICAOF", "127.0.0.1", new.port)
        stale.resume()
        with pytest.raises(ConnectionError, match="no primary"):
            limiter.ping()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("/hop/", "/other/"), "no primary of that name"),
        (("?sentinel_password=geheim%3A%3F2", ""), "(?i)authentication"),
        (("geheim%40%2F1", "wrong"), "(?i)wrongpass|authentication|invalid"),
    ],
)
def test_sentinels_that_do_not_lead_to_a_primary(site, change, reason):
    url = site.url.replace(*change)
    with pytest.raises(ConnectionError, match=reason) as refused:
        Limiter("10/s", sync=RedisSync(url, timeout=0.5, require=True))
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis+sentinel://:hunter2@a:1,b:2", "names no primary"),
        ("redis+sentinel://:hunter2@a:1,b:2/", "names no primary"),
        ("redis+sentinel://:hunter2@a:1,/hop", "expected redis://"),
        ("redis+sentinel://:hunter2@a:1/hop/one", "expected redis://"),
        ("redis+sentinel://:hunter2@a:1/hop/0/1", "expected redis://"),
        ("redis://a:1?sentinel_password=hunter2", "sentinel_password needs redis\\+sentinel://"),
        ("redis+sentinel://:hunter2@a:1/hop?ssl_ca_certs=/x", "needs TLS"),
    ],
)
def test_a_url_that_is_refused(url, what):
    with pytest.raises(ValueError, match=what) as refused:
        Limiter("10/s", sync=RedisSync(url))
    assert "rediss+sentinel://" in str(refused.value)
    assert "hunter2" not in str(refused.value)
