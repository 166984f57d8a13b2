"""What operators see of a Redis that does not serve: logs, errors, counters; and that it is found again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hopgate_limiter import Limiter, RedisSync
from redis import Redis

from tests.servers.proxy import FaultProxy
from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.alone

LOGGER = "hopgate_limiter"


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


def eventually(is_so: Callable[[], bool], within_s: float = 10.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def source(limiter: Limiter) -> str:
    return limiter.hit("k").source


@pytest.mark.parametrize("mode", ["every_hit", "strict"])
def test_a_demoted_master_is_left(mode):
    """The old master keeps its connections and refuses writes; a new connection leads to the new one."""
    with PrivateRedis() as old, PrivateRedis() as new, FaultProxy(old.port) as proxy:
        sync = RedisSync(f"redis://127.0.0.1:{proxy.port}", mode=mode, timeout=0.5, max_outstanding=1)
        with closing(Limiter("1000/s", sync=sync)) as limiter, Redis(port=old.port) as demoted:
            assert source(limiter) in {"redis", "lease"}
            proxy.target = new.port
            demoted.replicaof("127.0.0.1", new.port)
            eventually(lambda: source(limiter) == "fallback")
            eventually(lambda: source(limiter) in {"redis", "lease"})
            assert "READONLY" in (limiter.stats().last_error or "")


def test_lost_and_found_are_logged_once(caplog):
    """One line when calls are decided without Redis, with the reason, and one when Redis is back."""
    caplog.set_level(logging.WARNING, LOGGER)
    with PrivateRedis() as server:
        sync = RedisSync(server.url, prefix="rl:seen:", timeout=0.2)
        with closing(Limiter("1000/d", sync=sync)) as limiter:
            assert limiter.hit("k")
            assert limiter.stats().last_error is None
            server.kill()
            eventually(lambda: source(limiter) == "fallback")
            eventually(lambda: limiter.stats().redis_errors >= 4)
            assert "refused" in (limiter.stats().last_error or "").lower()
            server.start()
            eventually(lambda: len(caplog.records) == 2)
    lost, found = (record.getMessage() for record in caplog.records)
    assert lost.startswith("limits under 'rl:seen:' are decided without Redis: ")
    assert found == "limits under 'rl:seen:' are shared through Redis again"


REFUSALS = [
    pytest.param("redis://user:wrong@127.0.0.1:{port}", "(?i)authentication|wrongpass", id="password"),
    pytest.param("redis://127.0.0.1:{port}/99", "(?i)out of range|db", id="database"),
    pytest.param("redis://127.0.0.1:1", "(?i)refused", id="port"),
    pytest.param("redis://nowhere.invalid:{port}", "(?i)lookup|resolve|known|name", id="host"),
    pytest.param("redis://narrow:secret@127.0.0.1:{port}", "(?i)perm", id="prefix not allowed"),
    pytest.param("redis://mute:secret@127.0.0.1:{port}", "(?i)perm", id="no scripts"),
]


@pytest.mark.parametrize(("url", "reason"), REFUSALS)
def test_a_redis_that_does_not_serve_says_why(server, caplog, url, reason):
    """At the start if it is required, when asked, in the log, and in the counters."""
    with Redis(port=server.port) as admin:
        admin.acl_setuser("narrow", enabled=True, passwords=["+secret"], commands=["+@all"], keys=["other:*"])
        admin.acl_setuser(
            "mute", enabled=True, passwords=["+secret"], commands=["+@all", "-@scripting"], keys=["*"]
        )
    url = url.format(port=server.port)
    with pytest.raises(ConnectionError, match=reason) as refused:
        Limiter("10/s", sync=RedisSync(url, timeout=0.3, require=True))
    assert "secret" not in str(refused.value)
    with closing(Limiter("10/s", sync=RedisSync(url, timeout=0.3))) as limiter:
        with pytest.raises(ConnectionError, match=reason):
            limiter.ping()
        limiter.hit("k")
        eventually(lambda: bool(limiter.stats().last_error))
        eventually(lambda: "are decided without Redis" in caplog.text)


def test_a_redis_that_serves(server):
    """ping returns, and a required Redis is no obstacle; a local limiter has none."""
    with closing(Limiter("10/s", sync=RedisSync(server.url, timeout=0.5, require=True))) as limiter:
        limiter.ping()
    Limiter("10/s").ping()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://user:hunter2@host", "scheme 'http'"),
        ("redis+sentry://user:hunter2@host/0", r"scheme 'redis\+sentry'"),
        ("user:hunter2@host", "no scheme"),
        ("/hunter2", "no scheme"),
        ("redis://:hunter2@host:99999", "expected redis://"),
        ("redis://:hunter2@a:1,b:2", "several hosts"),
        ("rediss://:hunter2@host/#insecure", "'#' is not supported"),
        ("rediss://:hunter2@host?ssl_check=/x", "parameter 'ssl_check' is not supported"),
        ("redis://:hunter2@host/abc", "expected redis://"),
        ("redis://:pa#hunter2@host", "'#' is not supported"),
        ("redis://:pa?hunter2@host", "parameter"),
    ],
)
def test_a_url_that_cannot_be_read(url, what):
    """The message says what is wrong and which forms exist, and shows no password."""
    with pytest.raises(ValueError, match=what) as refused:
        Limiter("10/s", sync=RedisSync(url))
    assert "rediss+cluster://" in str(refused.value)
    assert "hunter2" not in str(refused.value)
