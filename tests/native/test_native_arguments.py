"""Every argument of every public callable: what cannot be used is refused by its name."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from math import inf, nan
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask
from hopgate_limiter import (
    Decision,
    Limiter,
    ManualClock,
    Rate,
    RateLimitExceeded,
    RedisSync,
    Slot,
    client_key,
    contrib,
)
from hopgate_limiter.contrib import asgi, decorators, django, fastapi, flask, httpx, requests, robyn, wsgi


class Stranger:
    """Of no use to anything."""

    def __repr__(self) -> str:
        return "<stranger>"


STRANGER = Stranger()
URL = "redis://localhost"


def local() -> Limiter:
    return Limiter("1/s burst 5", clock=ManualClock())


def decision() -> Decision:
    return local().hit("k")


def noop(*_: object, **__: object) -> None:
    pass


def entered(*args: Any, **options: Any) -> None:
    with local().slot(*args, **options):
        pass


async def entered_async(*args: Any, **options: Any) -> None:
    async with local().slot(*args, **options):
        pass


def called(*rates: Any, **options: Any) -> None:
    """A decorated function is called; what its key or its cost are can be seen only then."""
    decorators.limited(*rates, **options)(noop)()


def decorated(function: Any) -> Any:
    return decorators.limited("1/s")(function)


SLOT = inspect.signature(Limiter.slot)
LIMITED = inspect.signature(decorators.limited)

# Name: the call, its signature if it is another's, arguments that it needs, and those that take anything.
CALLS: dict[str, tuple[Callable[..., Any], inspect.Signature | None, dict[str, Any], set[str]]] = {
    "Rate": (Rate, None, {"limit": 1, "per": "s"}, set()),
    "Rate.parse": (Rate.parse, None, {}, set()),
    "Limiter": (Limiter, None, {"rates": "1/s"}, set()),
    "Limiter.configure": (local().configure, None, {}, set()),
    "Limiter.reset": (local().reset, None, {}, set()),
    "Limiter.hit_many": (local().hit_many, None, {"items": [("k", 1)]}, set()),
    "Limiter.reserve": (local().reserve, None, {}, set()),
    "Limiter.slot": (entered, SLOT, {}, {"self"}),
    "Limiter.slot, async": (entered_async, SLOT, {}, {"self"}),
    "Slot": (
        Slot,
        None,
        {"limiter": local(), "key": "k", "cost": 1, "timeout": None},
        {"key", "cost", "timeout", "rates"},
    ),
    "RateLimitExceeded": (RateLimitExceeded, None, {}, set()),
    "Decision.headers": (decision().headers, None, {}, set()),
    "ManualClock": (ManualClock, None, {}, set()),
    "ManualClock.advance": (ManualClock().advance, None, {}, set()),
    "ManualClock.set": (ManualClock().set, None, {}, set()),
    "client_key": (client_key, None, {"address": "::1"}, set()),
    "RedisSync": (RedisSync, None, {"url": URL}, set()),
    "RedisSync.overshoot_bound": (
        RedisSync(URL).overshoot_bound,
        None,
        {"rate": Rate(1, "s"), "nodes": 1},
        set(),
    ),
    "limited": (called, LIMITED, {"rates": "1/s", "wait": True}, set()),
    "limited, decorating": (decorated, None, {}, set()),
    "contrib.RateLimits": (contrib.RateLimits, None, {"default": "1/s"}, set()),
    "contrib.RateLimits.make_limit": (contrib.RateLimits().make_limit, None, {"rates": "1/s"}, set()),
    "contrib.by_address": (contrib.by_address, None, {}, set()),
    "contrib.by_header": (contrib.by_header, None, {"name": "x"}, set()),
    "contrib.by_user": (contrib.by_user, None, {}, set()),
    "contrib.Answer": (contrib.Answer, None, {}, set()),
    "contrib.Answer.json": (contrib.Answer.json, None, {"content": 1}, {"content"}),
    "contrib.Answer.text": (contrib.Answer.text, None, {"content": "x"}, set()),
    "contrib.TrustedProxies": (contrib.TrustedProxies, None, {}, set()),
    "asgi.RateLimitMiddleware": (
        asgi.RateLimitMiddleware,
        None,
        {"app": noop, "limits": asgi.RateLimits()},
        set(),
    ),
    "wsgi.RateLimitMiddleware": (
        wsgi.RateLimitMiddleware,
        None,
        {"app": noop, "limits": wsgi.RateLimits()},
        set(),
    ),
    "fastapi.RateLimits.install": (fastapi.RateLimits().install, None, {}, set()),
    "flask.RateLimits.init_app": (flask.RateLimits().init_app, None, {}, set()),
    "httpx.LimitedTransport": (httpx.LimitedTransport, None, {"rates": "1/s"}, {"key"}),
    "httpx.AsyncLimitedTransport": (httpx.AsyncLimitedTransport, None, {"rates": "1/s"}, {"key"}),
    "requests.LimitedAdapter": (requests.LimitedAdapter, None, {"rates": "1/s"}, {"key"}),
}
for name in ("allow", "hit", "hit_async", "peek", "peek_async", "refund", "refund_async"):
    CALLS[f"Limiter.{name}"] = (getattr(local(), name), None, {}, set())
for name in ("acquire", "acquire_async"):
    CALLS[f"Limiter.{name}"] = (getattr(local(), name), None, {}, set())
    CALLS[f"Limiter.{name}, own rates"] = (getattr(local(), name), None, {"rates": "1/s burst 5"}, set())
for module in (fastapi, flask, django, robyn):
    name = module.__name__.rpartition(".")[2]
    CALLS[f"{name}.RateLimits.limit"] = (module.RateLimits().limit, None, {"rates": "1/s"}, set())


def arguments() -> Iterator[Any]:
    for name, (call, signature, _, takes_anything) in CALLS.items():
        for argument in (signature or inspect.signature(call)).parameters.values():
            if argument.name not in takes_anything:
                yield pytest.param(name, argument, id=f"{name}-{argument.name}")


def make(name: str, argument: inspect.Parameter, value: Any) -> None:
    """Call with this value of one argument."""
    call, signature, needed, _ = CALLS[name]
    values = {**needed, argument.name: value}
    positional, options = [], {}
    for parameter in (signature or inspect.signature(call)).parameters.values():
        if parameter.name not in values:
            continue
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL}:
            positional.append(values[parameter.name])
        else:
            options[parameter.name] = values[parameter.name]
    made = call(*positional, **options)
    if inspect.iscoroutine(made):
        asyncio.run(made)


@pytest.mark.parametrize(("name", "argument"), list(arguments()))
def test_wrong_type(name, argument):
    """TypeError: the argument, what it must be, and the type that was given."""
    with pytest.raises(TypeError) as refused:
        make(name, argument, STRANGER)
    message = str(refused.value)
    assert "Stranger" in message
    assert "must be" in message
    word = "rate" if argument.kind is argument.VAR_POSITIONAL else argument.name
    assert word in message.partition("must be")[0].split()


SURROGATE = "\udc80"
SECONDS = [nan, -1.0, -inf]
VALUES: dict[str, dict[str, list[Any]]] = {
    "Rate": {
        "limit": [0, -1, 2**63],
        "per": ["", "fortnight", "s" * 1000, SURROGATE, 0, -1, nan, inf, 1e300, 10**400],
        "burst": [0, -1, 2**63, 2**63 - 1],
        "name": ["", "x" * 65, "ö", '"', "\\", "\n", SURROGATE],
    },
    "Rate.parse": {
        "spec": ["", ";", "x", "1/", "/s", "1/s burst", "1/s burst 0", SURROGATE, "9" * 400 + "/s"]
    },
    "Limiter": {
        "algorithm": ["", "GCRA", SURROGATE],
        "max_keys": [0, -1, 2**32 + 1, 2**70],
        "max_bytes": [0, -1, 1, 2**70],
        "on_full": ["", SURROGATE],
        "precision": [0, -1, 1025, 2**70],
    },
    "Limiter.hit": {"cost": [-1, 2**63, 10**400], "rates": ["", "x"]},
    "Limiter.hit_async": {"cost": [-1, 2**63], "rates": ["", "x"]},
    "Limiter.hit_many": {
        "items": ["k", [("k",)], [("k", -1)], [("k", 2**63)], [(None, 1)]],
        "rates": ["", "x"],
    },
    "Limiter.peek": {"cost": [-1, 2**63], "rates": ["", "x"]},
    "Limiter.refund": {"cost": [-1, 2**63], "rates": ["", "x"]},
    "Limiter.acquire": {"cost": [-1, 2**63], "timeout": SECONDS, "rates": ["", "x"]},
    "Limiter.acquire_async": {"cost": [-1, 2**63], "timeout": SECONDS, "rates": ["", "x"]},
    "Limiter.acquire, own rates": {"timeout": SECONDS},
    "Limiter.acquire_async, own rates": {"timeout": SECONDS},
    "Limiter.slot": {"cost": [-1, 2**63], "timeout": SECONDS, "rates": ["", "x"]},
    "Limiter.reserve": {"cost": [-1, 2**63], "max_wait": SECONDS, "rates": ["", "x"]},
    "Decision.headers": {"style": ["", "IETF", SURROGATE], "jitter": [-1, 2**63]},
    "ManualClock": {"now_ns": [-1, 2**64, 10**400]},
    "ManualClock.advance": {"ns": [-1, 2**64, 10**400]},
    "ManualClock.set": {"ns": [-1, 2**64, 10**400]},
    "client_key": {"address": ["", "x", "1.2.3.4:80", SURROGATE], "v6_prefix": [0, -1, 129, 300, 2**70]},
    "RedisSync": {
        "url": [SURROGATE],
        "prefix": [SURROGATE],
        "mode": ["", "Strict", SURROGATE],
        "max_outstanding": [-1, -0.1, 1.5, nan, 2**64, 10**400],
        "lease_ttl": [0, 0.0001, 61, nan, inf, -1, 10**400],
        "max_lease": [0, -1, 2**63],
        "cold": [""],
        "optimistic": [0, -1, 2**63],
        "on_error": [""],
        "timeout": [0, 0.0001, 61, nan, inf, -1, 10**400],
        "fresh": [""],
    },
    "RedisSync.overshoot_bound": {"nodes": [-1, 2**63]},
    "limited": {"rates": ["", "x"], "cost": [-1, 2**63], "timeout": SECONDS},
    "contrib.RateLimits": {
        "default": ["", "x"],
        "cost": [-1, 2**63],
        "routes": [{"x": "1/s"}, {"/": "x"}, {"/*x": None}],
        "exempt": [["x"], [""]],
        "trusted_proxies": [["x"], ["10.0.0.1/8"], [""]],
        "headers": ["", "IETF"],
        "mode": [""],
        "on_error": [""],
    },
    "contrib.by_address": {"v6_prefix": [0, 129]},
    "contrib.by_header": {"name": [""]},
    "contrib.Answer": {"status": [0, 99, 1000]},
    "contrib.TrustedProxies": {"proxies": [["x"], ["10.0.0.1/8"]]},
    "fastapi.RateLimits.limit": {"cost": [-1]},
    "httpx.LimitedTransport": {"cost": [-1], "timeout": SECONDS},
    "requests.LimitedAdapter": {"cost": [-1], "timeout": SECONDS},
}
# Text with rates is refused by its part that cannot be read; an item of many by what it must be.
PARTS = {
    "rates": ("rate", "period", "limit", "burst", "spec"),
    "default": ("rate", "period", "limit"),
    "spec": ("spec", "rate", "period", "limit", "burst", "text"),
    "per": ("per", "period"),
    "items": ("items", "item", "cost", "key"),
    "routes": ("routes", "rule", "rate"),
    "exempt": ("rule",),
    "proxies": ("proxies", "proxy"),
    "trusted_proxies": ("proxy",),
}


def values() -> Iterator[Any]:
    for name, wrong in VALUES.items():
        call, signature, _, _ = CALLS[name]
        for argument in (signature or inspect.signature(call)).parameters.values():
            for value in wrong.get(argument.name, ()):
                given = ascii(value)
                yield pytest.param(name, argument, value, id=f"{name}-{argument.name}-{given:.30}")


@pytest.mark.parametrize(("name", "argument", "value"), list(values()))
def test_wrong_value(name, argument, value):
    """ValueError, or OverflowError: the argument, what it must be, and the value that was given."""
    with pytest.raises((ValueError, OverflowError, TypeError)) as refused:
        make(name, argument, value)
    message = str(refused.value)
    message.encode()
    words = PARTS.get(argument.name, (argument.name,))
    assert any(word in message for word in words), message
    assert len(message) < 700
    assert type(refused.value) in {ValueError, OverflowError, TypeError}
    assert "must" in message or "cannot read" in message


def test_every_public_callable_is_here():
    """Whatever takes an argument stands in the table above."""
    public = {
        f"Limiter.{name}"
        for name in dir(Limiter)
        if not name.startswith("_") and callable(getattr(Limiter, name))
    }
    without_arguments = {"Limiter.stats", "Limiter.ping", "Limiter.close"}
    assert public - without_arguments <= set(CALLS)


def test_frameworks_are_accepted():
    fastapi.RateLimits().install(FastAPI())
    flask.RateLimits().init_app(Flask("x"))


def test_what_a_factory_makes_is_a_limiter():
    with pytest.raises(TypeError, match="make must return a Limiter, not Stranger"):
        contrib.RateLimits("1/s", make=lambda *_: STRANGER)  # type: ignore[arg-type]
