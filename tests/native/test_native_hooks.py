"""`on_decision`: it receives each decision that is counted, once, and unable to change it."""

import asyncio
import gc
import sys
import threading
import weakref

import pytest
from hopgate_limiter import CostTooLargeError, Limiter, ManualClock, RateLimitExceeded, RedisSync


@pytest.fixture
def received():
    return []


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def limiter(received, clock):
    return Limiter("3/h", clock=clock, on_decision=lambda *call: received.append(call))


async def test_every_decision_is_told(limiter, received):
    """By every call, with the key as it was given."""
    key = ("tenant", 7)
    assert limiter.allow(key)
    decision = limiter.hit("a")
    assert received == [(key, limiter.peek(key)), ("a", decision)]
    assert received[0][0] is key
    assert received[1][1] is decision
    received.clear()
    first, second = limiter.hit_many([("a", 2), ("b", 9)])
    assert received == [("a", first), ("b", second)]
    received.clear()
    decision = await limiter.hit_async("a")
    assert not decision
    assert received == [("a", decision)]
    received.clear()
    decision = limiter.acquire("c", timeout=0)
    assert received == [("c", decision)]
    decision = await limiter.acquire_async("c", timeout=0)
    assert received[1:] == [("c", decision)]
    with limiter.slot("c"):
        pass
    limiter.hit("d", rates="1/h")
    limiter.hit()
    assert [(key, bool(decision)) for key, decision in received[2:]] == [("c", True), ("d", True), ("", True)]


def test_refusals_are_told(limiter, received):
    """Also those that are exceptions."""
    limiter.hit("a", 3)
    received.clear()
    with pytest.raises(RateLimitExceeded) as refused:
        limiter.reserve("a", max_wait=0)
    with pytest.raises(CostTooLargeError):
        limiter.acquire("a", 4)
    assert not limiter.acquire("a", timeout=1)
    assert [bool(decision) for _, decision in received] == [False] * 3
    assert received[0][1] == refused.value.decision


def test_told_as_often_as_counted(limiter, received):
    """What takes nothing is not received."""
    for _ in range(5):
        limiter.allow("a")
    limiter.peek("a")
    limiter.refund("a")
    limiter.reset("a")
    limiter.configure("5/h")
    limiter.stats()
    stats = limiter.stats()
    assert len(received) == stats.allowed + stats.denied == 5


async def test_caller_that_tries_again_reports_once(limiter, received, clock):
    """The last of its decisions."""
    limiter.hit("a", rates="1/s")
    received.clear()
    task = asyncio.create_task(limiter.acquire_async("a", rates="1/s"))
    waiter = threading.Thread(target=limiter.acquire, args=["a"], kwargs={"rates": "1/s"})
    waiter.start()
    while not task.done() or waiter.is_alive():
        await asyncio.sleep(0.001)
        clock.advance(10**8)
    assert [(key, bool(decision)) for key, decision in received] == [("a", True)] * 2
    received.clear()
    with pytest.raises(CostTooLargeError):
        await limiter.acquire_async("a", 2, rates="1/s")
    assert not limiter.acquire("a", rates="1/h", timeout=0)
    assert [bool(decision) for _, decision in received] == [False] * 2


def test_bad_call_is_not_told(limiter, received):
    """Nothing was decided."""
    with pytest.raises(TypeError):
        limiter.allow(None)
    with pytest.raises(TypeError):
        limiter.hit_many([("a", 1), (None, 1)])
    assert received == []


def test_shadow_is_told_as_it_is_answered(received, clock):
    """The source names it."""
    limiter = Limiter("1/h", shadow=True, clock=clock, on_decision=lambda *call: received.append(call))
    assert [limiter.allow("k") for _ in range(2)] == [True, True]
    assert [decision.source for _, decision in received] == ["local", "shadow"]


def test_what_it_raises_changes_no_decision(monkeypatch):
    """The units are taken: the caller gets the answer, the interpreter's hook the error."""
    seen: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    def hook(key, decision):
        raise LookupError(key)

    limiter = Limiter("1/h", on_decision=hook)
    assert [limiter.allow("k") for _ in range(2)] == [True, False]
    assert [type(error.exc_value) for error in seen] == [LookupError] * 2
    assert seen[0].object is hook


def test_it_may_call_the_limiter(clock):
    """No lock is held."""
    levels = []

    def look(key, _):
        levels.append(own.peek(key).remaining)

    own = Limiter("3/h", clock=clock, on_decision=look)
    own.allow("k")
    own.hit("k")
    assert levels == [2, 1]


def test_it_runs_in_the_thread_of_the_call(clock):
    """So it may use what belongs to a thread."""
    threads = set()
    limiter = Limiter("3/h", clock=clock, on_decision=lambda *_: threads.add(threading.current_thread()))
    caller = threading.Thread(target=limiter.allow, args=["k"])
    caller.start()
    caller.join()
    assert threads == {caller}


@pytest.mark.parametrize("hook", [5, "print", ()])
def test_what_cannot_be_called_is_refused(hook):
    """When the limiter is made."""
    with pytest.raises(TypeError, match=f"on_decision must be callable, not {type(hook).__name__}"):
        Limiter("1/h", on_decision=hook)


def test_limiter_in_its_own_hook_is_collected():
    """A circle of references is found."""

    class Owner:
        def __init__(self):
            self.limiter = Limiter("1/h", on_decision=self.received)

        def received(self, key, decision):
            pass

    gone = weakref.ref(Owner())
    gc.collect()
    assert gone() is None


async def test_decisions_of_redis_are_told(received):
    """Those that come later, too; without Redis it is the fallback, once for each call."""
    sync = RedisSync("redis://127.0.0.1:1", timeout=0.01, on_error="deny")
    limiter = Limiter("3/h", sync=sync, on_decision=lambda *call: received.append(call))
    decisions = [limiter.hit("a"), *await asyncio.gather(limiter.hit_async("b"), limiter.hit_async("c"))]
    assert limiter.allow("d") is False
    limiter.close()
    assert sorted(key for key, _ in received) == ["a", "b", "c", "d"]
    assert {decision.source for _, decision in received} == {"fallback"}
    assert all(decision in [each for _, each in received] for decision in decisions)
