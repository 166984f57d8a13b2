"""Keys of others: two limiters whose keys meet, and values that no limiter has written."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis
from hopgate_limiter import Limiter, ManualClock, RedisSync
from hopgate_limiter._native import _CompletionQueue

from tests.native.central_state import CentralState
from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.alone

LOGGER = "hopgate_limiter"
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def client(server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def eventually(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def limiter(server: PrivateRedis, rates: str, prefix: str = "rl:", **sync: object) -> Limiter:
    options: dict[str, object] = {"timeout": 1.0, "on_error": "deny", **sync}
    return Limiter(rates, sync=RedisSync(server.url, prefix=prefix, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["strict", "every_hit"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(("1000/min", "rl:", "k"), ("5/h", "rl:", "k"), id="rates"),
        pytest.param(("10/h", "rl:", "k"), ("10/h; 50/d", "rl:", "k"), id="more rates"),
        pytest.param(("10/h burst 10", "rl:", "k"), ("10/h burst 20", "rl:", "k"), id="burst"),
        pytest.param(("10/h", "rl:", "api:x"), ("10/h", "rl:api:", "x"), id="nested prefixes"),
        pytest.param(("10/h", "rl:api:", "x"), ("10/h", "rl:", "api:x"), id="nested the other way"),
    ],
)
def test_limiters_whose_keys_meet(server, client, caplog, mode, first, second):
    """The second takes nothing from the first, and says so: its calls are decided without Redis."""
    caplog.set_level(logging.WARNING, LOGGER)
    (rates, prefix, key), (other_rates, other_prefix, other_key) = first, second
    with (
        closing(limiter(server, rates, prefix, mode=mode)) as one,
        closing(limiter(server, other_rates, other_prefix, mode=mode)) as other,
    ):
        assert one.hit(key)
        stored = client.get(prefix + key)
        decision = other.hit(other_key)
        assert decision.source == "fallback"
        assert client.get(prefix + key) == stored
        for what in (lambda: other.peek(other_key), lambda: other.hit(other_key, 0)):
            assert what().source == "fallback"
        other.reset(other_key)
        eventually(lambda: "CLASH" in (other.stats().last_error or ""))
        assert f"'{prefix}{key}'" in (other.stats().last_error or "")
        assert one.hit(key)
        assert one.stats().last_error is None
        eventually(lambda: f"limits under '{other_prefix}', some keys: CLASH" in caplog.text)
        # One line, however many calls.
        for _ in range(20):
            other.hit(other_key)
        time.sleep(0.1)
        assert caplog.text.count("CLASH") == 1
        # Its other keys are its own.
        assert other.hit("own").source in ("redis", "lease")


def test_a_clash_between_processes(server, client):
    """The other limiter is in another process."""
    script = (
        "from hopgate_limiter import Limiter, RedisSync\n"
        f"limiter = Limiter('5/h', sync=RedisSync({server.url!r}, timeout=1.0))\n"
        "limiter.hit('k')\n"
        "print(limiter.hit('k').source, limiter.stats().last_error)\n"
    )
    with closing(limiter(server, "1000/min")) as one:
        assert one.hit("k", 100)
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ran.stdout.startswith("fallback CLASH")
        assert one.hit("k", 600)


def test_same_rates_are_the_same_limiter(server, client):
    """In other modes, and under other names."""
    with (
        closing(limiter(server, "10/h", mode="every_hit")) as one,
        closing(limiter(server, "10/h", mode="strict")) as other,
    ):
        assert one.hit("k", 5)
        assert other.hit("k", 1)
        assert (one.stats().last_error, other.stats().last_error) == (None, None)


def test_configure_is_no_clash(server, client):
    """One process after the other changes the rates, and back: units spent stay spent."""
    with (
        closing(limiter(server, "10/h", mode="every_hit")) as one,
        closing(limiter(server, "10/h", mode="every_hit")) as other,
    ):
        assert one.hit("k", 6)
        for rates in ("12/h", "14/h", "10/h"):
            one.configure(rates)
            assert one.hit("k", 0).source == "redis"
            assert other.hit("k", 0).source == "redis"
            one.hit("k", 1)
            assert other.hit("k", 0).source == "redis"
            other.configure(rates)
            assert other.hit("k", 0).source == "redis"
        assert (one.stats().last_error, other.stats().last_error) == (None, None)
        assert not one.hit("k", 4)


def test_rates_of_processes_that_have_gone(redis_server):
    """A deployment with other rates takes a key over once it has been quiet, with its debt, and says so."""
    with redis.Redis(port=redis_server.port) as client:
        state = CentralState(client, b"rl:k")
        now_us = 10 * DAY_US

        def node(rates: str) -> Limiter:
            return Limiter(rates, clock=ManualClock(), sync=RedisSync("redis://localhost", mode="every_hit"))

        def run(limiter: Limiter, cost: int) -> list[int]:
            queue = _CompletionQueue(-1)
            assert limiter._submit("k", cost, queue, 1) is None
            (request,) = limiter._collect()
            reply = state.run(request.body, now_us)
            limiter._complete(request, reply.numbers)
            return reply.verdicts

        old, new = node("10/h"), node("20/h")
        assert run(old, 8) == [-1]
        now_us += 2_900_000
        with pytest.raises(redis.ResponseError, match="CLASH"):
            run(node("20/h"), 1)
        now_us += 200_000
        assert -1 not in run(new, 13)
        assert run(new, 12) == [-1]
        assert "TAKEOVER" in (new.stats().last_error or "")
        with pytest.raises(redis.ResponseError, match="CLASH"):
            run(old, 1)


FOREIGN = [
    pytest.param(b"hello", id="text"),
    pytest.param(b"", id="empty"),
    pytest.param(b"42", id="number"),
    pytest.param(b"\x01", id="one"),
    pytest.param(b"\x80", id="map"),
    pytest.param(b"\x96\x01", id="cut"),
    pytest.param(b"\x94\x01\x02\x03\x04", id="short"),
    pytest.param(b"\x96\x01\x01\x01\x01\x01\x01", id="numbers for tables"),
    pytest.param(b"\x93\x02\x01\x01", id="another version"),
]


@pytest.mark.parametrize("value", FOREIGN)
@pytest.mark.parametrize("mode", ["strict", "every_hit"])
def test_foreign_value_is_not_overwritten(server, client, caplog, value, mode):
    """A key of something else: the limiter leaves it alone, decides without Redis, and says so."""
    caplog.set_level(logging.WARNING, LOGGER)
    with closing(limiter(server, "1000/h", mode=mode)) as one:
        assert one.hit("good")
        client.set("rl:bad", value)
        assert one.hit("bad").source == "fallback"
        assert one.peek("bad").source == "fallback"
        one.reset("bad")
        with pytest.raises(ConnectionError):
            one.refund("bad", 5)
        eventually(lambda: "FOREIGN" in (one.stats().last_error or ""))
        assert "'rl:bad'" in (one.stats().last_error or "")
        assert client.get("rl:bad") == value
        assert client.ttl("rl:bad") == -1
        eventually(lambda: "some keys: FOREIGN" in caplog.text)
        assert one.hit("good").source in ("redis", "lease")
        client.delete("rl:bad")
        eventually(lambda: one.hit("bad").source in ("redis", "lease"))


def test_foreign_kind_is_not_overwritten(server, client):
    with closing(limiter(server, "1000/h")) as one:
        client.rpush("rl:list", "x")
        assert one.hit("list").source == "fallback"
        assert client.lrange("rl:list", 0, -1) == [b"x"]
        eventually(lambda: "WRONGTYPE" in (one.stats().last_error or ""))


def test_a_key_in_a_message_is_one_line(server, client):
    """A key may come from a client: it ends no line of a log, and does not fill it."""
    with closing(limiter(server, "1000/h")) as one:
        key = "a\r\n\x1b[31m" + "b" * 200
        client.set("rl:" + key, "hello")
        assert one.hit(key).source == "fallback"
        eventually(lambda: bool(one.stats().last_error))
        error = one.stats().last_error or ""
        assert error.isprintable()
        assert len(error) < 200
