"""
Speed gates for shared limits: ratios of two things measured in turns within one test.

    pytest bench/limiter --benchmark-enable

A bar fails when the ratio has become about twice as bad as it was when the bar was set. `shared.py`
measures against the bars of the design, and more rivals.
"""

import pytest
from hopgate_limiter import Limiter, RedisSync

from bench.limiter.every_hit import SHAPES, compare
from bench.limiter.test_gates import KEY, gate, only_when_asked, ratio  # noqa: F401 - a fixture
from tests.servers.redis import PrivateRedis

RATE = "100000000/s burst 100000000"


@pytest.fixture(scope="module")
def server():
    with PrivateRedis() as server:
        yield server


def test_leased_allow_against_one_that_is_not_shared(benchmark, server):
    """A token on lease costs what a token in memory costs: 0.9 to 1.2 times."""
    with Limiter(RATE, sync=RedisSync(server.url, prefix="leased:", timeout=1.0)) as leased:
        leased.allow(KEY)
        measured = ratio(leased.allow, Limiter(RATE).allow)
        gate(benchmark, leased.allow, measured)
        assert leased.stats().lease_hits > 0
    assert measured <= 2.2


def test_remembered_refusal_against_one_that_is_not_shared(benchmark, server):
    """What Redis has refused is refused here until it can change: 0.8 to 1.1 times."""
    alone = Limiter("1/h")
    alone.allow(KEY)
    with Limiter("1/h", sync=RedisSync(server.url, prefix="refused:", timeout=1.0)) as refused:
        refused.allow(KEY)
        assert not refused.allow(KEY)
        calls = refused.stats().remote_calls
        measured = ratio(refused.allow, alone.allow)
        gate(benchmark, refused.allow, measured)
        assert refused.stats().remote_calls == calls
    assert measured <= 2.2


@pytest.mark.parametrize(("title", "bar"), [("64 tasks, one key", 5), ("64 tasks, 1,000 keys", 2)])
def test_every_hit_against_limits(benchmark, server, title, bar):
    """Concurrent calls share pipelines, and those about one key share a request."""
    shape = next(shape for shape in SHAPES if shape.title == title)
    rival = "limits, fixed window"
    mine, theirs = compare(shape, server.url, [rival], 5, 0.3)[rival]
    benchmark.extra_info["ratio"] = round(mine / theirs, 2)
    benchmark.pedantic(lambda: None)
    assert mine / theirs >= bar
