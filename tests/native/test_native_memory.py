"""Memory is bounded in bytes as well as in keys, whatever the keys are."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest
import redis
from hopgate_limiter import Limiter, ManualClock, Rate, RedisSync

from tests.servers.redis import PrivateRedis


@pytest.mark.parametrize("on_full", ["deny", "shared_bucket", "evict_idle"])
@pytest.mark.parametrize(
    ("algorithm", "rates", "bytes_per_key"),
    [
        ("gcra", ["1/h"], 32),
        ("gcra", ["1/h", "2/d"], 54),
        ("sliding_window", ["1/h"], None),
        ("sliding_log", ["1000/h"], None),
    ],
)
def test_keys_fit_into_the_bytes(algorithm, rates, bytes_per_key, on_full):
    limiter = Limiter(*rates, algorithm=algorithm, max_bytes=100_000, on_full=on_full, clock=ManualClock())
    for number in range(5000):
        limiter.allow(number)
    keys = limiter.stats().keys
    if bytes_per_key:
        assert 0.9 * 100_000 // bytes_per_key <= keys <= 100_000 // bytes_per_key
    assert 0 < keys < 3500
    assert limiter.stats().overflowed > 0 or on_full == "deny"


def test_max_keys_holds_as_well():
    limiter = Limiter("1/h", max_keys=10, max_bytes=10**9, clock=ManualClock())
    for number in range(100):
        limiter.allow(number)
    assert limiter.stats().keys <= 11


def test_configure_stays_within_the_bytes():
    """A log of more instants does not fit; then nothing has changed."""
    limiter = Limiter("10/h", algorithm="sliding_log", max_bytes=100_000)
    with pytest.raises(ValueError, match="max_bytes has room for"):
        limiter.configure("1000/h")
    assert limiter.rates[0].limit == 10
    limiter.configure("5/h")
    limiter.configure("10/h")
    with pytest.raises(ValueError, match="max_bytes must be at least"):
        Limiter(Rate(10**9, "1h"), algorithm="sliding_log", max_bytes=10**6)


def test_a_flood_into_logs_stays_within_the_bytes():
    """The process grows by no more than it may: 10,000 keys would take 320 MB."""
    script = """
import resource
from hopgate_limiter import Limiter, ManualClock
clock = ManualClock()
limiter = Limiter("1000/h", algorithm="sliding_log", max_bytes=20_000_000, clock=clock)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(100):
    clock.advance(1)
    for number in range(5000):
        limiter.allow(number)
for _ in range(900):
    clock.advance(1)
    for number in range(600):
        limiter.allow(number)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(ran.stdout) * 1024 < 25_000_000


@pytest.fixture(scope="module")
def server():
    with PrivateRedis() as server:
        yield server


def test_long_keys_are_hashed_in_redis(server):
    """A hundred kilobytes in a header cost what a short key costs; different keys stay different."""
    with (
        closing(Limiter("2/h", sync=RedisSync(server.url, mode="every_hit", timeout=5.0))) as limiter,
        closing(Limiter("2/h", sync=RedisSync(server.url, mode="every_hit", timeout=5.0))) as other,
        redis.Redis(port=server.port) as client,
    ):
        text = "k" * 100_000
        keys: list[str | bytes | int] = [
            text,
            text + "k",
            text.encode(),
            10**100_000,
            -(10**100_000),
            "é" * 200,
        ]
        for key in keys:
            assert limiter.hit(key, 2).source == "redis"
        for key in keys:
            assert not other.hit(key)
            assert other.hit(str(hash(key))[:100]).allowed
        stored = list(client.scan_iter())
        assert max(len(key) for key in stored) <= len("rl:") + 256
        assert sum(b"\0h" in key for key in stored) == 6
        # Up to 256 bytes a key stays readable.
        assert limiter.hit("r" * 256)
        assert client.exists("rl:" + "r" * 256)
        other.refund(text, 2)
        assert other.peek(text, 2)


def test_shared_keys_fit_into_the_bytes(server):
    sync = RedisSync(server.url, prefix="bytes:", timeout=5.0)
    with closing(Limiter("5/h", max_bytes=200_000, sync=sync)) as limiter:
        limiter.hit_many([("k" * 250 + str(number), 1) for number in range(1000)])
        assert 50 < limiter.stats().keys <= 250
        assert limiter.stats().overflowed > 0
