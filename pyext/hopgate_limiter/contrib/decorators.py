"""
Limits for functions: plain, async, generators of both kinds, methods.

    @limited("10/s")
    async def send(message): ...

    @limited("5/min", key=lambda user, *_: user.id, wait=True)
    def report(user, month): ...

The context managers are `Limiter.slot` and `Limiter` itself.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from hopgate_limiter import Decision, Key, Limiter, Rate, RateLimitExceeded
from hopgate_limiter._waiting import refused
from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._budget import limiter_of

__all__ = ["RateLimitExceeded", "limited"]

_MADE = "_hopgate_decorated"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def limited(
    *rates: str | Rate | Limiter,
    key: Key | Callable[..., Key | None] = "",
    cost: int | Callable[..., int] = 1,
    wait: bool = False,
    timeout: float | None = None,
) -> Callable[[_Function], _Function]:
    """
    Return a decorator that charges every call. Two of them charge both limits or none.

    The function keeps its signature and its kind. A generator is charged when its first value is asked for.
    An async function never blocks its event loop; a plain one blocks its thread while it waits.

    Args:
        rates: rates as `Limiter` takes them, or one limiter, which several functions may share.
        key: the subject that is counted, or a function of the call's arguments that tells; its None admits
            the call uncharged. By default all calls are one subject.
        cost: units that a call costs, or a function of its arguments that tells.
        wait: wait for the units instead of refusing the call.
        timeout: the longest wait in seconds, unlimited if None.

    Raises:
        RateLimitExceeded: by the decorated function: the call is refused, or would wait too long.
        ValueError: a timeout without `wait`, or what `Limiter` refuses.
    """
    _arguments.cost(cost)
    _arguments.flag("wait", wait)
    _arguments.seconds_or_none("timeout", timeout)
    if timeout is not None and not wait:
        raise ValueError("timeout must be None unless wait is True")
    gate = _Gate(limiter_of(rates), key, cost, wait=wait, timeout=timeout)

    def decorate(function: _Function) -> _Function:
        # A decorator above @classmethod or @staticmethod gets their object; a method is charged all the same.
        if isinstance(function, (classmethod, staticmethod)):
            return cast("_Function", type(function)(_decorated(function.__func__, gate)))
        _arguments.function("function", function)
        return cast("_Function", _decorated(function, gate))

    return decorate


class _Gate:
    """One limit of a function."""

    def __init__(
        self,
        limiter: Limiter,
        key: Key | Callable[..., Key | None],
        cost: int | Callable[..., int],
        *,
        wait: bool,
        timeout: float | None,
    ) -> None:
        self.limiter = limiter
        self._key = key
        self._cost = cost
        self._wait = wait
        self._timeout = timeout

    def asked(self, args: Any, kwargs: Any) -> tuple[Key, int] | None:
        """Return the key and the cost of a call; None if it is admitted uncharged."""
        key = self._key(*args, **kwargs) if callable(self._key) else self._key
        if key is None:
            return None
        return key, self._cost(*args, **kwargs) if callable(self._cost) else self._cost

    def take(self, key: Key, cost: int) -> None:
        if self._wait:
            _admitted(self.limiter.acquire(key, cost, timeout=self._timeout))
        else:
            _admitted(self.limiter.hit(key, cost))

    async def take_async(self, key: Key, cost: int) -> None:
        if self._wait:
            _admitted(await self.limiter.acquire_async(key, cost, timeout=self._timeout))
        elif self.limiter._is_shared:  # noqa: SLF001
            _admitted(await self.limiter.hit_async(key, cost))
        else:
            _admitted(self.limiter.hit(key, cost))


class _Gates:
    """All limits of a function, outermost first: if one refuses a call, the others give back their units."""

    def __init__(self, gates: tuple[_Gate, ...]) -> None:
        self.gates = gates

    def enter(self, args: Any, kwargs: Any) -> None:
        charged: list[tuple[Limiter, Key, int]] = []
        try:
            for gate in self.gates:
                asked = gate.asked(args, kwargs)
                if asked is not None:
                    gate.take(*asked)
                    charged.append((gate.limiter, *asked))
        except BaseException:
            _give_back(charged)
            raise

    async def enter_async(self, args: Any, kwargs: Any) -> None:
        charged: list[tuple[Limiter, Key, int]] = []
        try:
            for gate in self.gates:
                asked = gate.asked(args, kwargs)
                if asked is not None:
                    await gate.take_async(*asked)
                    charged.append((gate.limiter, *asked))
        except BaseException:
            for limiter, key, cost in charged:
                with suppress(ConnectionError):
                    await limiter.refund_async(key, cost)
            raise


def _give_back(charged: list[tuple[Limiter, Key, int]]) -> None:
    for limiter, key, cost in charged:
        # What Redis does not take back while it is away stays charged; the refusal is what callers see.
        with suppress(ConnectionError):
            limiter.refund(key, cost)


def _admitted(decision: Decision) -> None:
    if not decision:
        raise refused(decision)


@dataclass(frozen=True, slots=True)
class _Decorated:
    """What a function decorated here is made of."""

    wrapper: Callable[..., Any]
    function: Callable[..., Any]
    gates: tuple[_Gate, ...]


def _decorated(function: Callable[..., Any], gate: _Gate) -> Callable[..., Any]:
    """Decorate a function, or add a limit to one that has some."""
    made: _Decorated | None = getattr(function, _MADE, None)
    gates: tuple[_Gate, ...] = (gate,)
    # A decorator of another kind in between copies the attribute, and is not the wrapper.
    if made is not None and made.wrapper is function:
        function, gates = made.function, (gate, *made.gates)
    wrapper = _wrapped(function, _Gates(gates))
    setattr(wrapper, _MADE, _Decorated(wrapper, function, gates))
    return wrapper


def _wrapped(function: Callable[..., Any], gates: _Gates) -> Callable[..., Any]:
    """Return a function of the same kind that passes the gates first."""
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def limited_coroutine(*args: Any, **kwargs: Any) -> Any:
            await gates.enter_async(args, kwargs)
            return await function(*args, **kwargs)

        return limited_coroutine

    if inspect.isasyncgenfunction(function):
        return _wrapped_async_generator(function, gates)

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def limited_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            gates.enter(args, kwargs)
            return (yield from function(*args, **kwargs))

        return limited_generator

    @wraps(function)
    def limited_function(*args: Any, **kwargs: Any) -> Any:
        gates.enter(args, kwargs)
        return function(*args, **kwargs)

    return limited_function


def _wrapped_async_generator(function: Callable[..., Any], gates: _Gates) -> Callable[..., Any]:
    @wraps(function)
    async def limited_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        await gates.enter_async(args, kwargs)
        inner = function(*args, **kwargs)
        step = inner.asend(None)
        # What `yield from` does, which async generators do not have (PEP 525).
        try:
            while True:
                try:
                    value = await step
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001
                    step = inner.athrow(error)
                else:
                    step = inner.asend(sent)
        finally:
            await inner.aclose()

    return limited_async_generator
