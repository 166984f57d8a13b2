"""Keys of several parts and of other kinds: different keys stay different, everywhere alike."""

import os
import subprocess
import sys
from collections import namedtuple
from enum import IntEnum, StrEnum
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from uuid import UUID, uuid4

import pytest
from hopgate_limiter import Key, Limiter, ManualClock, RedisSync
from hypothesis import given
from hypothesis import strategies as st

Tenant = namedtuple("Tenant", "name number")


class Plan(StrEnum):
    FREE = "free"


class Level(IntEnum):
    ONE = 1


class Id(UUID):
    """A subclass, as object-relational mappers have."""


ONE = "00000000-0000-0000-0000-000000000001"
DIFFERENT: list[Key] = [
    ("a", "b"),
    ("ab",),
    "a,b",
    ("a,b",),
    "ab",
    ("a", ("b",)),
    (("a",), "b"),
    (("a", "b"),),
    ("a", "b", ""),
    ("", "a", "b"),
    ("a", b"b"),
    (b"a", "b"),
    "('a', 'b')",
    "(2:t1:at1:b",
    b"(2:t1:at1:b",
    (),
    ((),),
    ((), ()),
    "",
    b"",
    ("",),
    (b"",),
    1,
    (1,),
    ("1",),
    (b"1",),
    (1, 1),
    (11,),
    (2**64,),
    (-(2**64),),
    (2**64 - 1,),
    ("\ud800",),
    UUID(int=7),
    (7,),
    UUID(ONE),
    ONE,
    (UUID(ONE),),
    UUID(ONE).bytes,
    UUID(int=2),
    ip_address("192.0.2.7"),
    "192.0.2.7",
    int(ip_address("192.0.2.7")),
    (ip_address("192.0.2.7"),),
    ip_address("::ffff:192.0.2.7"),
    ip_address("::c000:207"),
    ip_address("fe80::1"),
    ip_address("fe80::1%eth0"),
    ip_address("fe80::1%eth1"),
    ip_interface("192.0.2.7/24"),
    ip_interface("192.0.2.7/32"),
]


def test_different_keys_are_different():
    """Type, number and length of the parts all count."""
    limiter = Limiter("1/h")
    assert [key for key in DIFFERENT if not limiter.allow(key)] == []
    assert [key for key in DIFFERENT if limiter.allow(key)] == []
    assert limiter.stats().keys == len(DIFFERENT)


@pytest.mark.parametrize(
    ("key", "same"),
    [
        (("a", 1), Tenant("a", 1)),
        (("a", 1), ("a", True)),
        (("free",), (Plan.FREE,)),
        ((1,), (Level.ONE,)),
        (UUID(ONE), Id(ONE)),
        (UUID(ONE), UUID(int=1)),
        (ip_address("2001:db8::"), ip_address("2001:0DB8:0:0::0")),
    ],
)
def test_equal_keys_are_one(key, same):
    """Values count, not classes."""
    limiter = Limiter("1/h")
    assert limiter.allow(key)
    assert not limiter.allow(same)


def nested(depth: int) -> Key:
    key: Any = "k"
    for _ in range(depth):
        key = (key,)
    return key


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (("a", None), TypeError, "a part of key must be str, .*, not NoneType"),
        ((1.5,), TypeError, "a part of key .*, not float"),
        ((("a", ["b"]),), TypeError, "a part of key .*, not list"),
        (ip_network("192.0.2.0/24"), TypeError, "key must be .* an IP address, not IPv4Network"),
        ({"a"}, TypeError, "key must be .*, not set"),
        (nested(17), ValueError, "key must be tuples at most 16 deep"),
        (nested(100_000), ValueError, "key must be tuples at most 16 deep"),
    ],
    ids=["none", "float", "list", "network", "set", "deep", "very-deep"],
)
def test_refused_keys(key, error, message):
    """Nothing is taken."""
    limiter = Limiter("1/h")
    for call in (limiter.allow, limiter.hit, limiter.peek, limiter.acquire, limiter.refund, limiter.reset):
        with pytest.raises(error, match=message):
            call(key)
    with pytest.raises(error, match=message):
        limiter.hit_many([("fine", 1), (key, 1)])
    assert limiter.stats().keys == 0
    assert limiter.allow(nested(16))


@pytest.mark.parametrize("key", [("a", 1), uuid4(), ip_address("::1")])
async def test_every_call_takes_them(key):
    """As it takes texts."""
    limiter = Limiter("5/h")
    assert limiter.allow(key)
    assert limiter.hit(key).remaining == 3
    assert limiter.hit_many([(key, 1)])[0].remaining == 2
    assert (await limiter.hit_async(key)).remaining == 1
    limiter.refund(key)
    assert limiter.peek(key).remaining == 2
    assert limiter.acquire(key).remaining == 1
    assert (await limiter.acquire_async(key)).remaining == 0
    limiter.reset(key)
    async with limiter.slot(key) as decision:
        assert decision.remaining == 4
    assert limiter.reserve(key).delay == 0.0


parts = st.recursive(
    st.one_of(st.text(max_size=3), st.binary(max_size=3), st.integers(), st.uuids(), st.ip_addresses()),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def typed(key: Key) -> object:
    """What makes keys equal: the value and the types of its parts."""
    if isinstance(key, tuple):
        return tuple(typed(part) for part in key)
    return type(key).__name__, str(key) if not isinstance(key, bytes) else key


@given(st.tuples(parts, parts))
def test_encoding_is_free_of_collisions(pair):
    """Two keys share a bucket if and only if they are equal, part by part."""
    one, other = pair
    limiter = Limiter("1/h")
    assert limiter.allow(one)
    assert limiter.allow(other) == (typed(one) != typed(other))
    assert not limiter.allow(one)


def redis_key(key: Key) -> bytes:
    """Return the key in Redis, without connecting."""
    sync = RedisSync("redis://127.0.0.1:1", prefix="rl:", cold="optimistic")
    limiter = Limiter("10/s", clock=ManualClock(), sync=sync)
    limiter.hit(key)
    [request] = limiter._collect()
    return request.key


def test_keys_in_redis_are_different():
    """A colliding key would share its limit with a stranger."""
    assert len({redis_key(key) for key in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("a", 7), b"rl:\0c(2:t1:ai1:7"),
        (("é", (b"x",)), "rl:\0c(2:t2:é(1:b1:x".encode()),
        (UUID(int=1), b"rl:\0cu16:" + bytes(15) + b"\1"),
        (ip_address("fe80::1%eth0"), b"rl:\0ca12:fe80::1%eth0"),
    ],
)
def test_keys_in_redis_are_the_same_in_every_version(key, expected):
    """Processes of two versions share a limit during an upgrade."""
    assert redis_key(key) == expected


def test_keys_in_redis_are_the_same_in_every_process():
    """Neither hash seeds nor identities count."""
    code = (
        "from uuid import UUID; from ipaddress import ip_address\n"
        "from hopgate_limiter import *\n"
        "sync = RedisSync('redis://127.0.0.1:1', cold='optimistic')\n"
        "limiter = Limiter('10/s', clock=ManualClock(), sync=sync)\n"
        "limiter.hit((UUID(int=1), ip_address('::1'), 'a', (2**70, b'x')))\n"
        "print(limiter._collect()[0].key.hex())"
    )
    run = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    key = redis_key((UUID(int=1), ip_address("::1"), "a", (2**70, b"x")))
    assert run == [key.hex() + "\n"] * 2


def test_without_a_key_all_calls_share_one_bucket():
    """The empty text; other empty keys are others, and None is no key."""
    limiter = Limiter("3/h")
    assert limiter.allow()
    assert limiter.hit().remaining == 1
    assert limiter.peek("").remaining == 1
    assert limiter.peek(b"").remaining == limiter.peek(()).remaining == 3
    assert limiter.acquire(cost=1).remaining == 0
    limiter.refund(cost=2)
    assert limiter.reserve(cost=2).delay == 0.0
    assert not limiter.hit(cost=1)
    limiter.reset()
    assert limiter.allow(cost=3)
    with pytest.raises(TypeError):
        limiter.hit(None)  # type: ignore[arg-type]


async def test_without_a_key_under_asyncio():
    """The same bucket."""
    limiter = Limiter("3/h")
    assert await limiter.hit_async()
    assert await limiter.acquire_async()
    async with limiter.slot():
        assert not limiter.allow()
