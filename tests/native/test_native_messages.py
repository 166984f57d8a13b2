"""Errors about arguments name the argument, and what it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hopgate_limiter import Limiter, Rate, RedisSync, client_key

URL = "redis://localhost"
WRONG: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (Rate, ("1", "s"), {}, TypeError, "limit must be int, not str"),
    (Rate, (1.0, "s"), {}, TypeError, "limit must be int, not float"),
    (Rate, (0, "s"), {}, ValueError, "limit must be at least 1, got 0"),
    (Rate, (2**63, "s"), {}, OverflowError, "limit must be below 2**63, got 9223372036854775808"),
    (Rate, (1, "s"), {"burst": "2"}, TypeError, "burst must be int, not str"),
    (Rate, (1, None), {}, TypeError, "per must be str, seconds or timedelta, not NoneType"),
    (client_key, (3,), {}, TypeError, "address must be str or None, not int"),
    (client_key, ("::1",), {"v6_prefix": "x"}, TypeError, "v6_prefix must be 1 to 128 bits, not str"),
    (client_key, ("::1",), {"v6_prefix": 0}, ValueError, "v6_prefix must be 1 to 128 bits, got 0"),
    (
        Limiter,
        ("1/s",),
        {"sync": URL},
        TypeError,
        "sync must be RedisSync, as in RedisSync('redis://localhost')",
    ),
    (Limiter, ("1/s",), {"precision": 0}, ValueError, "precision must be 1 to 1024 buckets, got 0"),
    (Limiter, ("1/s",), {"precision": 1025}, ValueError, "precision must be 1 to 1024 buckets, got 1025"),
    (Limiter, ("1/s",), {"precision": -1}, ValueError, "precision must be 1 to 1024 buckets, got -1"),
    (Limiter, ("1/s",), {"precision": 2**70}, ValueError, "precision must be 1 to 1024 buckets, got 1"),
    (Limiter, ("1/s",), {"max_keys": "x"}, TypeError, "max_keys must be 1 to 2**32, not str"),
    (Limiter, ("1/s",), {"max_keys": 2**70}, ValueError, "max_keys must be 1 to 2**32, got 1"),
    (Limiter, ("1/s",), {"max_bytes": 0}, ValueError, "max_bytes must be at least 1, got 0"),
    (Limiter, ("1/s",), {"max_bytes": 1}, ValueError, "max_bytes must be at least 32, the most that one key"),
    (Limiter, ("1/s",), {"max_bytes": 1e6}, TypeError, "max_bytes must be int, not float"),
    (Limiter, ("1/s",), {"algorithm": 3}, TypeError, "algorithm must be str, not int"),
    (Limiter, ("1/s",), {"algorithm": "x"}, ValueError, "algorithm must be one of 'gcra', "),
    (Limiter, ("1/s",), {"on_full": 3}, TypeError, "on_full must be str, not int"),
    (Limiter, ("1/s",), {"shadow": "x"}, TypeError, "shadow must be bool, not str"),
    (RedisSync, (3,), {}, TypeError, "url must be str, not int"),
    (RedisSync, (URL,), {"prefix": 3}, TypeError, "prefix must be str, not int"),
    (RedisSync, (URL,), {"mode": 3}, TypeError, "mode must be str, not int"),
    (RedisSync, (URL,), {"lease_ttl": "x"}, TypeError, "lease_ttl must be a number of seconds, not str"),
    (RedisSync, (URL,), {"timeout": float("nan")}, ValueError, "timeout must be 0.001 to 60 s, got NaN s"),
    (RedisSync, (URL,), {"max_lease": 0}, ValueError, "max_lease must be at least 1, got 0"),
    (RedisSync, (URL,), {"max_lease": 1.5}, TypeError, "max_lease must be int, not float"),
    (
        RedisSync,
        (URL,),
        {"cold": "optimistic", "optimistic": -1},
        ValueError,
        "optimistic must be at least 1, got -1",
    ),
    (RedisSync, (URL,), {"max_outstanding": "x"}, TypeError, "max_outstanding must be int or float, not str"),
    (RedisSync, (URL,), {"require": "x"}, TypeError, "require must be bool, not str"),
    (RedisSync(URL).overshoot_bound, ("1/s", 1), {}, TypeError, "rate must be Rate, not str"),
    (RedisSync(URL).overshoot_bound, (Rate(1, "s"), -1), {}, ValueError, "nodes must be at least 0, got -1"),
    (Limiter("1/s").hit_many, (3,), {}, TypeError, "items must be pairs of a key and a cost, not int"),
    (Limiter("1/s").hit_many, (["k"],), {}, TypeError, "an item must be a pair of a key and a cost, not str"),
    (Limiter("1/s").hit_many, ([("k", "x")],), {}, TypeError, "cost must be int, not str"),
    (Limiter("1/s").hit, ("k", 1.5), {}, TypeError, "cost must be int, not float"),
    (Limiter("1/s").hit("k").headers, (), {"jitter": -1}, ValueError, "jitter must be at least 0, got -1"),
    (
        Limiter("1/s").hit("k").headers,
        (),
        {"jitter": 2**63},
        OverflowError,
        "jitter must be below 2**63, got 9",
    ),
    (Limiter("1/s").hit("k").headers, (), {"jitter": 1.5}, TypeError, "jitter must be int, not float"),
    (
        Limiter("1/s").hit("k").headers,
        (),
        {"style": 1},
        TypeError,
        "style must be 'ietf', 'legacy' or 'both', not int",
    ),
    (Limiter("1/s").hit("k").headers, (), {"redirect": "x"}, TypeError, "redirect must be bool, not str"),
]


@pytest.mark.parametrize(
    ("call", "args", "kwargs", "error", "message"), WRONG, ids=[message for *_, message in WRONG]
)
def test_message_names_the_argument(call, args, kwargs, error, message):
    with pytest.raises(error) as refused:
        call(*args, **kwargs)
    assert str(refused.value).startswith(message)


def test_allow_takes_keywords_as_hit_does():
    limiter = Limiter("3/h")
    assert limiter.allow(key="k", cost=2)
    assert not limiter.hit(key="k", cost=2)


def test_hit_many_takes_any_iterable():
    limiter = Limiter("3/h")
    assert all(limiter.hit_many({"a": 1, "b": 2}.items()))
    assert all(limiter.hit_many((key, 1) for key in "cde"))
