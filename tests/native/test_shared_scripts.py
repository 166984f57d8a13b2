"""Limits shared through a Redis whose user may run the script, and not all that is usual to get it there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hopgate_limiter import Limiter, RedisSync
from redis import Redis

from tests.servers.redis import PrivateRedis

FORBIDDEN = [
    pytest.param(["-script"], id="script"),
    pytest.param(["-script|load"], id="script load"),
    pytest.param(["-evalsha"], id="evalsha"),
    pytest.param(["-script", "-evalsha"], id="script and evalsha"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def url(server: PrivateRedis, forbidden: list[str]) -> str:
    """The URL of a user who may do all but what is forbidden."""
    with Redis(port=server.port) as admin:
        admin.script_flush()
        admin.flushall()
        admin.acl_setuser(
            "app", reset=True, enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", *forbidden]
        )
    return f"redis://app:pw@127.0.0.1:{server.port}"


def calls(server: PrivateRedis, command: str) -> int:
    with Redis(port=server.port) as admin:
        found = admin.info("commandstats").get(f"cmdstat_{command}", {})
    return int(found.get("calls", 0))


@pytest.mark.parametrize("forbidden", FORBIDDEN)
@pytest.mark.parametrize("mode", ["every_hit", "strict"])
def test_the_limit_is_kept_in_redis(url, mode):
    sync = RedisSync(url, mode=mode, on_error="deny", timeout=5.0, max_outstanding=1, require=True)
    with closing(Limiter("10/d", sync=sync)) as limiter:
        limiter.ping()
        decisions = [limiter.hit("k") for _ in range(12)]

        assert sum(decision.allowed for decision in decisions) == (10 if mode == "every_hit" else 9)
        assert "fallback" not in {decision.source for decision in decisions}
        assert {decision.source for decision in limiter.hit_many([(f"k{i}", 1) for i in range(300)])} <= {
            "redis",
            "lease",
        }
        assert limiter.stats().redis_errors == 0
        assert limiter.stats().last_error is None


@pytest.mark.parametrize("forbidden", FORBIDDEN)
def test_the_script_may_be_forgotten(server, url):
    """A restart or SCRIPT FLUSH: the next call brings the script, and no call is lost."""
    sync = RedisSync(url, mode="every_hit", on_error="deny", timeout=5.0)
    with closing(Limiter("1000/d", sync=sync)) as limiter:
        for _ in range(3):
            assert limiter.hit("k").source == "redis"
            server.command("SCRIPT", "FLUSH")
        decisions = limiter.hit_many([(f"k{i}", 1) for i in range(50)])
        assert {decision.source for decision in decisions} == {"redis"}
        assert limiter.peek("k").remaining == 997


@pytest.mark.parametrize("forbidden", [["-script"]])
def test_the_source_is_sent_once(server, url):
    sync = RedisSync(url, mode="every_hit", on_error="deny", timeout=5.0)
    with closing(Limiter("1000/d", sync=sync)) as limiter:
        limiter.hit("k")
        before = calls(server, "evalsha")
        for _ in range(20):
            limiter.hit("k")
        assert calls(server, "evalsha") == before + 20


@pytest.mark.parametrize("forbidden", [["-@scripting"]])
def test_without_any_script_the_reason_is_told(url):
    with closing(Limiter("10/d", sync=RedisSync(url, on_error="deny", timeout=0.5))) as limiter:
        with pytest.raises(ConnectionError, match="NOPERM"):
            limiter.ping()
        assert limiter.hit("k").source == "fallback"
        until = time.monotonic() + 5
        while "NOPERM" not in (limiter.stats().last_error or ""):
            assert time.monotonic() < until, "no reason"
            time.sleep(0.01)


def test_the_documented_permissions_suffice(server):
    needed = "eval get set time pexpire zadd zcard zrangebyscore zremrangebyscore"
    with Redis(port=server.port) as admin:
        admin.acl_setuser(
            "least",
            reset=True,
            enabled=True,
            passwords=["+pw"],
            keys=["least:*"],
            commands=[f"+{command}" for command in needed.split()],
        )
    url = f"redis://least:pw@127.0.0.1:{server.port}"
    sync = RedisSync(url, prefix="least:", mode="every_hit", on_error="deny", require=True)
    with closing(Limiter("2/d", sync=sync)) as limiter:
        assert [limiter.hit("k").source for _ in range(2)] == ["redis", "redis"]
        assert not limiter.allow("k")
        assert limiter.stats().redis_errors == 0
