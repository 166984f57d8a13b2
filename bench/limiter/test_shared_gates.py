"""
Speed gates for shared limits: ratios of two measurements in alternation within one test.

    pytest bench/limiter --benchmark-enable

A bar fails when the ratio is about twice as bad as when the bar was set. `shared.py`
measures against the bars of the design, and more rivals.
"""

from contextlib import closing

import pytest
from hopgate_limiter import Limiter, RedisSync

from bench.limiter.every_hit import SHAPES, compare
from bench.limiter.test_gates import KEY, gate, only_when_enabled, ratio  # noqa: F401 - a fixture
from tests.servers.redis import PrivateRedis

RATE = "100000000/s burst 100000000"


@pytest.fixture(scope="module")
def server():
    with PrivateRedis() as server:
        yield server


def test_leased_allow_against_local_allow(benchmark, server):
    """A token on lease costs as much as a token in memory: 0.9 to 1.2 times."""
    with closing(Limiter(RATE, sync=RedisSync(server.url, prefix="leased:", timeout=1.0))) as leased:
        leased.allow(KEY)
        measured = ratio(leased.allow, Limiter(RATE).allow)
        gate(benchmark, leased.allow, measured)
        assert leased.stats().lease_hits > 0
    assert measured <= 2.2


def test_remembered_refusal_against_local_refusal(benchmark, server):
    """A refusal by Redis is repeated locally until the state can change: 0.8 to 1.1 times."""
    alone = Limiter("1/h")
    alone.allow(KEY)
    # A refusal is repeated for the lifetime of a lease, which must exceed the test's on a busy machine.
    sync = RedisSync(server.url, prefix="refused:", timeout=1.0, lease_ttl=60.0)
    with closing(Limiter("1/h", sync=sync)) as refused:
        refused.allow(KEY)
        assert not refused.allow(KEY)
        calls = refused.stats().remote_calls
        measured = ratio(refused.allow, alone.allow)
        gate(benchmark, refused.allow, measured)
        assert refused.stats().remote_calls == calls
    assert measured <= 2.2


@pytest.mark.parametrize(("title", "bar"), [("64 tasks, one key", 5), ("64 tasks, 1,000 keys", 2)])
def test_every_hit_against_limits(benchmark, server, title, bar):
    """Concurrent calls share pipelines, and calls for one key share a request."""
    shape = next(shape for shape in SHAPES if shape.title == title)
    rival = "limits, fixed window"
    mine, theirs = compare(shape, server.url, [rival], 5, 0.3)[rival]
    benchmark.extra_info["ratio"] = round(mine / theirs, 2)
    benchmark.pedantic(lambda: None)
    assert mine / theirs >= bar
