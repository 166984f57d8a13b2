"""Requests that share a command decide as each alone would, and as the whole script would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from hopgate_limiter import Limiter, ManualClock, Rate, RedisSync
from hopgate_limiter._native import _CompletionQueue, _Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.budgets import examples
from tests.native.central_state import CentralState, _arriving_at
from tests.servers.redis import PrivateRedis

START_US = 1_900_000_000_000_000
NOISE_US = 5_000_000
SHORTCUT = "  if reply then return reply end\n"


@pytest.fixture(scope="module")
def client(redis_server: PrivateRedis) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_server.port) as client:
        yield client


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


class Ways:
    """One key in three copies: decided by the whole script, by the short way, and beside another key."""

    def __init__(self, client: redis.Redis) -> None:
        script = _Request.script()
        assert script.count(SHORTCUT) == 1
        self.whole = CentralState(client, b"rl:whole", script.replace(SHORTCUT, ""))
        self.short = CentralState(client, b"rl:short")
        self.beside = CentralState(client, b"rl:beside")
        self.other = b"rl:other"
        self.together = 0

    def run(self, request: _Request, now_us: int) -> list[int]:
        whole = self.whole.run(request.body, now_us).numbers
        assert self.short.run(request.body, now_us).numbers == whole
        assert self.short.stored() == self.whole.stored()
        if request.short is not None and self._decides_beside(request.body, request.short, now_us, whole):
            self.together += 1
        else:
            assert self.beside.run(request.body, now_us).numbers == whole
        assert self.beside.stored() == self.whole.stored()
        # The server has counted down for a while before the test looks.
        for copy in (self.short, self.beside):
            assert abs((copy.expires_us or 0) - (self.whole.expires_us or 0)) < NOISE_US
            copy.expires_us = self.whole.expires_us
        return whole

    def _decides_beside(self, body: bytes, short: bytes, now_us: int, expected: list[int]) -> bool:
        self.beside.expire(now_us)
        before = self.beside.stored()
        self.beside.client.delete(self.other)
        header = _arriving_at(body, now_us)
        keys = [self.other, self.beside.key]
        _, numbers = self.beside.call(keys, [header, b"\x91\x01", short], now_us)
        if numbers is None:
            assert self.beside.stored() == before
            return False
        assert numbers == expected
        return True

    def lose(self, value: bytes | None) -> None:
        for state in (self.whole, self.short, self.beside):
            state.restore(value)


any_rates = st.builds(
    lambda limit, us, burst: Rate(limit, f"{us}us", burst=burst),
    st.integers(1, 20),
    st.sampled_from([1, 7, 1000, 7_001, 333_333, 10_000_000]),
    st.integers(1, 10),
)
steps = st.tuples(
    st.integers(0, 2),
    st.integers(1, 4),
    st.integers(0, 3_000_000) | st.integers(0, 2_000),
    st.sampled_from(["ok", "ok", "ok", "ok", "lost", "rolled back", "clock back", "reset"]),
)


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(any_rates, st.sampled_from(["full", "empty"]), st.lists(steps, max_size=30))
def test_all_ways_decide_alike(client, rate, fresh, history):
    """Also with several nodes, leases, lost replies, lost writes, expired states, and a clock set back."""
    ways, queue = Ways(client), _CompletionQueue(-1)
    clock = ManualClock()
    modes = ["every_hit", "every_hit", "leased"]
    nodes = [
        Limiter(
            rate,
            clock=clock,
            sync=RedisSync("redis://localhost", mode=mode, fresh=fresh, max_outstanding=rate.burst // 2),  # type: ignore[arg-type]
        )
        for mode in modes
    ]
    now_us = START_US
    values: list[bytes | None] = [None]
    for node, cost, wait_us, event in history:
        clock.advance(wait_us * 1000)
        now_us += -5_000 if event == "clock back" else wait_us
        if event == "reset":
            nodes[node].reset("k")
        if event == "rolled back":
            ways.lose(values[len(values) // 2])
        nodes[node]._submit("k", cost, queue, 1)
        for request in nodes[node]._collect():
            numbers = ways.run(request, now_us)
            nodes[node]._complete(request, None if event == "lost" else numbers)
        values.append(ways.whole.stored())


def test_plain_calls_go_the_short_way(client):
    ways, clock, queue = Ways(client), ManualClock(), _CompletionQueue(-1)
    limiter = Limiter("10/s", clock=clock, sync=RedisSync("redis://localhost", mode="every_hit"))
    for i in range(10):
        limiter._submit("k", 1, queue, i)
        (request,) = limiter._collect()
        limiter._complete(request, ways.run(request, START_US + i))
    assert ways.together == 10


def commands(server: PrivateRedis) -> int:
    stats = server.command("INFO", "commandstats")
    assert isinstance(stats, dict)
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


@pytest.mark.parametrize(
    ("forbidden", "most"), [pytest.param([], 40, id="server"), pytest.param(["-role"], None, id="proxy")]
)
def test_keys_share_commands(server, forbidden, most):
    """Only where one server is known to have all keys: a proxy knows a command by its first key."""
    with redis.Redis(port=server.port) as admin:
        admin.flushall()
        admin.acl_setuser(
            "app", reset=True, enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", *forbidden]
        )
    url = f"redis://app:pw@127.0.0.1:{server.port}"
    with closing(
        Limiter("2/d", sync=RedisSync(url, mode="every_hit", timeout=5.0, on_error="deny"))
    ) as limiter:
        limiter.hit("first")
        items = [(f"k{i}", 1) for i in range(300)]
        for _ in range(2):
            before = commands(server)
            decisions = limiter.hit_many(items)
            asked = commands(server) - before
            assert {(decision.allowed, decision.source) for decision in decisions} == {(True, "redis")}
            assert asked == 300 if most is None else asked <= most


def test_one_bad_key_concerns_no_other(server):
    with redis.Redis(port=server.port) as admin:
        admin.flushall()
        admin.lpush("rl:list", "x")
        admin.set("rl:text", "x")
        sync = RedisSync(server.url, mode="every_hit", timeout=5.0, on_error="deny")
        with closing(Limiter("2/d", sync=sync)) as limiter:
            limiter.hit("first")
            names = [*(f"k{i}" for i in range(20)), "list", "text", *(f"l{i}" for i in range(20))]
            sources = {
                name: decision.source
                for name, decision in zip(names, limiter.hit_many([(n, 1) for n in names]), strict=True)
            }
        assert {sources.pop("list"), sources.pop("text")} == {"fallback"}
        assert set(sources.values()) == {"redis"}
        assert admin.get("rl:text") == b"x"


def switches_of_sync_thread() -> int:
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "hopgate-limiter":
            status = (task / "status").read_text()
            return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    raise AssertionError("no sync thread")


def test_single_caller_sends_its_own_requests(server):
    """It waits for Redis alone: neither the sync thread nor the caller has to be woken by the other."""
    sync = RedisSync(server.url, prefix="own:", mode="every_hit", timeout=5.0, on_error="deny")
    with closing(Limiter("1000000/d", sync=sync)) as limiter:
        limiter.hit("k")
        before = switches_of_sync_thread()
        assert {limiter.hit("k").source for _ in range(500)} == {"redis"}
        assert switches_of_sync_thread() - before < 100
