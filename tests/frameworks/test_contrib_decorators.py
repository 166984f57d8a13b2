"""Limits of functions of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from functools import wraps

import pytest
from hopgate_limiter import CostTooLargeError, Limiter, ManualClock, RateLimitExceeded
from hopgate_limiter.contrib.decorators import limited


def a_limiter(rates="2/h"):
    return Limiter(rates, clock=ManualClock())


def test_plain_function_is_refused_beyond_the_limit():
    @limited(a_limiter())
    def add(one: int, other: int = 1) -> int:
        """Add."""
        return one + other

    assert [add(1), add(1, other=2)] == [2, 3]
    with pytest.raises(RateLimitExceeded) as refused:
        add(1)
    assert refused.value.decision.retry_after == 1800.0
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert str(inspect.signature(add)) == "(one: 'int', other: 'int' = 1) -> 'int'"


async def test_coroutine_function_stays_one():
    @limited(a_limiter())
    async def double(number):
        return 2 * number

    assert inspect.iscoroutinefunction(double)
    assert [await double(1), await double(2)] == [2, 4]
    with pytest.raises(RateLimitExceeded):
        await double(3)


def test_generator_is_charged_with_its_first_value():
    @limited(a_limiter("1/h"))
    def echo():
        received: list[str] = []
        while len(received) < 2:
            received.append((yield len(received)))
        return received

    assert inspect.isgeneratorfunction(echo)
    unused = echo()
    generator = echo()
    assert [next(generator), generator.send("a")] == [0, 1]
    with pytest.raises(StopIteration) as ended:
        generator.send("b")
    assert ended.value.value == ["a", "b"]
    with pytest.raises(RateLimitExceeded):
        next(unused)


async def test_async_generator_passes_values_and_exceptions_both_ways():
    closed = []

    @limited(a_limiter("3/h"))
    async def echo():
        try:
            value = yield "begin"
            while True:
                try:
                    value = yield value
                except LookupError as error:
                    value = repr(error)
        finally:
            closed.append(True)

    assert inspect.isasyncgenfunction(echo)
    generator = echo()
    assert await anext(generator) == "begin"
    assert await generator.asend(1) == 1
    assert await generator.athrow(LookupError("theirs")) == "LookupError('theirs')"
    await generator.aclose()
    assert closed == [True]

    failing = echo()
    await anext(failing)
    with pytest.raises(ZeroDivisionError):
        await failing.athrow(ZeroDivisionError)
    assert closed == [True, True]

    @limited(a_limiter("1/h"))
    async def numbers():
        for number in range(3):
            yield number
        raise ZeroDivisionError

    generator = numbers()
    assert [await anext(generator) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        await anext(generator)
    with pytest.raises(RateLimitExceeded):
        await anext(numbers())


def test_methods_of_all_kinds_in_either_order():
    class Service:
        def __init__(self, name):
            self.name = name

        @limited(a_limiter("1/h"), key=lambda self: self.name)
        def method(self):
            return self.name

        @classmethod
        @limited(a_limiter("1/h"))
        def inside(cls):
            return cls.__name__

        @limited(a_limiter("1/h"))
        @classmethod
        def outside(cls):
            return cls.__name__

        @limited(a_limiter("1/h"))
        @staticmethod
        def static(number):
            return number

    assert [Service("a").method(), Service("b").method()] == ["a", "b"]
    for call in (Service("a").method, Service.inside, Service.outside, lambda: Service.static(1)):
        if call.__name__ != "method":
            assert call() in {"Service", 1}
        with pytest.raises(RateLimitExceeded):
            call()


def test_key_and_cost_see_the_arguments():
    @limited(a_limiter("10/h"), key=lambda user, n=1: user, cost=lambda user, n=1: n)
    def send(user, n=1):
        return n

    assert [send("a", 9), send("b", n=10), send("a"), send(None, 100)] == [9, 10, 1, 100]
    with pytest.raises(RateLimitExceeded):
        send("a")
    with pytest.raises(CostTooLargeError):
        send("c", 11)


@pytest.mark.parametrize("between", [False, True])
def test_two_limits_charge_both_or_none(between):
    """Also around a decorator of another kind, which then stays in its place."""
    tight, wide = a_limiter("1/h"), a_limiter("9/h")
    seen = []

    def other(function):
        @wraps(function)
        def called():
            seen.append(function.__name__)
            return function()

        return called

    def work():
        return "done"

    inner = limited(tight)(work)
    function = limited(wide)(other(inner) if between else inner)
    assert function() == "done"
    for _ in range(3):
        with pytest.raises(RateLimitExceeded):
            function()
    assert tight.peek("").remaining == 0
    assert wide.peek("").remaining == (5 if between else 8)
    assert len(seen) == (4 if between else 0)


async def test_two_limits_of_a_coroutine_function_charge_both_or_none():
    tight, wide = a_limiter("1/h"), a_limiter("9/h")

    @limited(wide)
    @limited(tight)
    async def work():
        return "done"

    await work()
    with pytest.raises(RateLimitExceeded):
        await work()
    assert wide.peek("").remaining == 8


async def test_waiting_never_blocks_the_loop():
    """Calls beyond the limit wait, in order, while another task moves the clock."""
    clock = ManualClock()
    done = []

    @limited(Limiter("1/s burst 1", clock=clock), wait=True)
    async def work(number):
        done.append(number)

    working = asyncio.gather(*map(work, range(4)))
    while not working.done():
        await asyncio.sleep(0)
        clock.advance(10_000_000)
    await working
    assert done == [0, 1, 2, 3]
    assert clock.now_ns >= 3_000_000_000


async def test_shared_limiter_never_blocks_the_loop(redis_server):
    """A first call asks Redis: in an event loop by `hit_async`."""
    from hopgate_limiter import RedisSync

    limiter = Limiter("5/h", sync=RedisSync(redis_server.url, prefix="rl:decorated:", on_error="allow"))

    @limited(limiter, key=lambda number: number)
    async def work(number):
        return number

    await work(1)
    redis_server.pause()
    try:
        working = asyncio.create_task(work(2))
        turns = 0
        while not working.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 3
    finally:
        redis_server.resume()
        await asyncio.to_thread(limiter.close)


def test_wait_ends_with_the_timeout():
    @limited(a_limiter("1/h"), wait=True, timeout=0.001)
    def work():
        return 1

    work()
    with pytest.raises(RateLimitExceeded):
        work()


def test_timeout_gives_back_what_an_outer_limit_has_charged():
    wide = a_limiter("9/h")

    @limited(wide)
    @limited(a_limiter("1/h"), wait=True, timeout=0.0)
    def work():
        return 1

    work()
    with pytest.raises(RateLimitExceeded):
        work()
    assert wide.peek("").remaining == 8


def test_threads_never_exceed_the_limit():
    done = []

    @limited(a_limiter("50/h"))
    def work():
        done.append(1)

    def try_often():
        for _ in range(25):
            with contextlib.suppress(RateLimitExceeded):
                work()

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 50


def test_bad_arguments_are_refused_at_once():
    with pytest.raises(ValueError, match="timeout must be None"):
        limited("1/s", timeout=1.0)
    with pytest.raises(ValueError, match="rate"):
        limited()
    with pytest.raises(TypeError, match="only rate"):
        limited(a_limiter(), "1/s")
