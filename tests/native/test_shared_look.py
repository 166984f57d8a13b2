"""`peek`, and hits that cost nothing, of shared limits: an answer names the source that it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis
from hopgate_limiter import Decision, Limiter, RedisSync

from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.alone

Look = Callable[[Limiter, str], Decision]

LOOKS: dict[str, Look] = {
    "peek": lambda limiter, key: limiter.peek(key),
    "peek 0": lambda limiter, key: limiter.peek(key, 0),
    "hit 0": lambda limiter, key: limiter.hit(key, 0),
    "peek_async": lambda limiter, key: asyncio.run(limiter.peek_async(key)),
    "hit_async 0": lambda limiter, key: asyncio.run(limiter.hit_async(key, 0)),
    "hit_many 0": lambda limiter, key: limiter.hit_many([(key, 0)])[0],
}


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture(autouse=True)
def client(server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def limiter(server: PrivateRedis, rates: str = "10/h", **sync: object) -> Limiter:
    options: dict[str, object] = {"timeout": 1.0, "mode": "every_hit", **sync}
    return Limiter(rates, sync=RedisSync(server.url, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("mode", ["every_hit", "strict", "leased"])
def test_what_another_process_has_used_is_seen(server, client, look, mode):
    with closing(limiter(server, mode=mode)) as one, closing(limiter(server, mode=mode)) as other:
        spent = 0
        while one.hit("k"):
            spent += 1
        one.close()
        stored = client.get("rl:k")
        before = other.stats().remote_calls
        decision = look(other, "k")
        assert (decision.source, decision.remaining) == ("redis", 0)
        assert decision.allowed == (decision.cost == 0)
        assert other.stats().remote_calls - before == 1
        assert client.get("rl:k") == stored
        assert other.stats().held == 0
        new = look(other, "new")
        assert (new.source, new.remaining, new.allowed) == ("redis", 8 if mode == "strict" else 10, True)
        assert client.get("rl:new") is None
        assert spent > 0


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_is_left_counts_leased_tokens(server, look):
    """Those of this process: a call can take them as well as what Redis has."""
    with closing(limiter(server, "100/d", mode="strict")) as one:
        assert one.hit("k")
        assert one.stats().held > 0
        held = one.stats().held
        assert look(one, "k").remaining == 74
        assert one.stats().held == held
        # A call gets exactly what is left.
        assert one.peek("k", 74)
        assert not one.peek("k", 75)
        assert one.hit("k", 74)
        assert not one.peek("k")


def test_peek_tells_what_a_hit_would_find(server):
    with closing(limiter(server, "10/s")) as one:
        assert one.hit("k", 8)
        assert one.peek("k", 2)
        refused = one.peek("k", 4)
        assert not refused
        assert 0.0 < refused.retry_after <= 0.2
        assert one.peek("k", 11).retry_after == float("inf")
        assert one.stats().allowed == 1
        assert one.stats().denied == 0


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("on_error", ["deny", "allow", "share"])
def test_without_redis_the_source_says_so(look, on_error):
    with closing(
        Limiter(
            "10/h",
            sync=RedisSync("redis://127.0.0.1:1", timeout=0.1, on_error=on_error),
        )
    ) as one:
        first = look(one, "k")
        again = look(one, "k")
    for decision in (first, again):
        assert decision.source == "fallback"
        assert decision.allowed == (on_error == "allow" or decision.cost == 0)


def test_calls_that_never_wait_tell_what_they_know(server):
    """With cold="optimistic" nothing asks Redis; the answer names this process."""
    with closing(limiter(server, mode="strict", cold="optimistic")) as one:
        assert one.peek("k").source == "local"
        assert one.hit("k", 0).source == "local"
        assert one.stats().remote_calls == 0


def test_one_message_for_many_looks(server):
    """Concurrent looks at one key share a message, and keys share a pipeline."""
    with closing(limiter(server, timeout=30.0)) as one:

        async def look() -> list[Decision]:
            server.pause()
            try:
                looks = [asyncio.ensure_future(one.peek_async("k")) for _ in range(100)]
                await asyncio.sleep(0.1)  # the first message is under way, and the others wait for its reply
            finally:
                server.resume()
            return await asyncio.gather(*looks)

        assert {decision.remaining for decision in asyncio.run(look())} == {10}
        assert one.stats().remote_calls <= 3
        assert [d.remaining for d in one.hit_many([("a", 0), ("a", 3), ("a", 0), ("b", 0)])] == [7, 7, 7, 10]
