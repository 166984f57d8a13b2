"""Clocks of the caller's own: the protocol, clocks that misbehave, and freezegun."""

import asyncio
import gc
import sys
import threading
import time
import weakref

import freezegun
import pytest
from hopgate_limiter import Clock, Limiter, ManualClock, RedisSync

S = 10**9


class Dial:
    """A clock that shows what the test sets."""

    def __init__(self, now_ns=0):
        self.shown = now_ns
        self.reads = 0

    @property
    def now_ns(self):
        self.reads += 1
        return self.shown


def test_protocol():
    """What has the time is a clock."""
    assert isinstance(ManualClock(), Clock)
    assert isinstance(Dial(), Clock)
    assert not isinstance(time, Clock)


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])
def test_limiter_follows_it(algorithm):
    """It is read once at each call, and decides as a manual clock does."""
    dial, manual = Dial(5 * S), ManualClock(5 * S)
    by_dial = Limiter("3/s", algorithm=algorithm, clock=dial)
    by_manual = Limiter("3/s", algorithm=algorithm, clock=manual)
    for step in (0, 0, 0, 0, S // 2, 0, S, 0, 7):
        dial.shown += step
        manual.advance(step)
        before = dial.reads
        assert by_dial.hit("k") == by_manual.hit("k")
        assert dial.reads == before + 1
        assert by_dial.peek("k", 2) == by_manual.peek("k", 2)


def test_clock_that_goes_back_stands_still():
    """As a manual clock."""
    dial = Dial(10 * S)
    limiter = Limiter("1/s", clock=dial)
    assert limiter.allow("k")
    dial.shown = 0
    assert limiter.hit("k").retry_after == 1.0
    dial.shown = 11 * S
    assert limiter.allow("k")


def test_plain_attribute_is_enough():
    """A protocol asks for an attribute, not for a property."""

    class Plain:
        now_ns = 2**64 - 1

    limiter = Limiter("1/s", clock=Plain())
    assert [limiter.allow("k") for _ in range(2)] == [True, False]


class WithMethod:
    def now_ns(self):
        return 5


class Raising:
    @property
    def now_ns(self):
        raise LookupError("no time")


@pytest.mark.parametrize(
    ("clock", "error", "message"),
    [
        (object(), TypeError, "clock must be a ManualClock, or have an attribute now_ns, not object"),
        (
            time.monotonic_ns,
            TypeError,
            "clock must be a ManualClock, or have an attribute now_ns, not builtin",
        ),
        (WithMethod(), TypeError, "clock.now_ns must be int, not method"),
        (Dial(1.5), TypeError, "clock.now_ns must be int, not float"),
        (Dial(-1), ValueError, r"clock.now_ns must be 0 to 2\*\*64 - 1 ns, got -1"),
        (Dial(2**64), ValueError, "clock.now_ns must be 0 to"),
        (Raising(), LookupError, "no time"),
    ],
)
def test_clocks_that_cannot_be_read(clock, error, message):
    """They are refused when the limiter is made."""
    with pytest.raises(error, match=message):
        Limiter("1/s", clock=clock)


def test_clock_that_fails_later_stands_still(monkeypatch):
    """The error is not the caller's: it goes to the hook of the interpreter."""
    seen: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    dial = Dial(S)
    limiter = Limiter("1/s", clock=dial)
    assert limiter.allow("k")
    dial.shown = None
    assert not limiter.allow("k")
    assert isinstance(seen[0].exc_value, TypeError)
    dial.shown = 2 * S
    assert limiter.allow("k")
    assert len(seen) == 1


def test_shared_limits_take_none():
    """Redis has a time of its own."""
    with pytest.raises(ValueError, match="clock: limits shared through Redis follow the time of the system"):
        Limiter("1/s", clock=Dial(), sync=RedisSync("redis://127.0.0.1:1"))


def test_waiting_caller_notices_that_it_has_moved():
    """Such a clock wakes no caller, so callers read it again and again."""
    dial = Dial()
    limiter = Limiter("1/h", clock=dial)
    assert limiter.allow("k")
    got = []
    waiter = threading.Thread(target=lambda: got.append(limiter.acquire("k")))
    waiter.start()
    while dial.reads < 4:
        time.sleep(0.001)
    dial.shown = 3600 * S
    waiter.join(10)
    assert got[0].allowed


async def test_waiting_task_notices_that_it_has_moved():
    """The same, in an event loop, with slots and with rates of the call."""
    dial = Dial()
    limiter = Limiter("1/h", clock=dial)
    assert limiter.allow("k")
    assert limiter.allow("own", rates="1/d")
    tasks = [
        asyncio.create_task(limiter.acquire_async("k")),
        asyncio.create_task(limiter.acquire_async("own", rates="1/d")),
    ]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    dial.shown = 86_400 * S
    assert all(await asyncio.wait_for(asyncio.gather(*tasks), 10))


def test_waiting_caller_does_not_spin():
    """A clock that stands still a nanosecond before the slot costs a read a millisecond at most."""
    dial = Dial()
    limiter = Limiter("1/s", clock=dial)
    assert limiter.allow("k")
    dial.shown = S - 1
    waiter = threading.Thread(target=lambda: limiter.acquire("k"))
    before = dial.reads
    start = time.monotonic()
    waiter.start()
    time.sleep(0.1)
    reads, elapsed = dial.reads - before, time.monotonic() - start
    dial.shown = S
    waiter.join(10)
    assert reads <= 10 + 2 * elapsed / 0.001


def test_clock_goes_with_its_limiter():
    """It is held as long as the limiter is."""
    dial = Dial()
    gone = weakref.ref(dial)
    limiter = Limiter("1/s", clock=dial)
    del dial
    assert limiter.allow("k")
    assert gone() is not None
    del limiter
    gc.collect()
    assert gone() is None


class WallClock:
    """The system's wall clock, which freezegun moves."""

    @property
    def now_ns(self):
        return time.time_ns()


def test_freezegun_moves_a_wall_clock():
    """The limiter's own clock is the system's and does not freeze."""
    with freezegun.freeze_time("2030-01-01 00:00:00") as frozen:
        limiter = Limiter("2/min", algorithm="sliding_log", clock=WallClock())
        assert [limiter.allow("k") for _ in range(3)] == [True, True, False]
        frozen.tick(59)
        assert not limiter.allow("k")
        frozen.tick(1)
        assert limiter.allow("k")
        frozen.move_to("2030-01-02")
        assert limiter.peek("k").remaining == 2
