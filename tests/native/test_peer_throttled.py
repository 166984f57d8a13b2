"""The scenarios of the suite of throttled-py (quotas, algorithms, timeouts, hooks), replayed."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

import pytest
from hopgate_limiter import CostTooLargeError, Decision, Limiter, ManualClock, Rate, RateLimitExceeded

from tests.native.peers import Scenario, both, run, scenarios, script

LOG: Final = "sliding_log"
WINDOW: Final = "sliding_window"
S = 10**9


def reads(text: str, limit: int, period_s: int, burst: int | None = None) -> Scenario:
    def play() -> None:
        [rate] = Rate.parse(text)
        assert (rate.limit, rate.period_ns, rate.burst) == (limit, period_s * S, burst or limit)

    return Scenario(f"quota-{text.replace(' ', '_').replace('/', '÷')}", play)


def two_rules() -> None:
    first, second = Rate.parse("1/s burst 3 | 60/minute")
    assert (first.limit, first.burst, second.limit, second.period_ns) == (1, 3, 60, 60 * S)


def refuses(text: object) -> Scenario:
    def play() -> None:
        with pytest.raises((ValueError, TypeError)):
            Rate.parse(text)  # type: ignore[arg-type]

    return Scenario(f"quota-refuses_{text!r}".replace(" ", "_"), play)


def month_is_read() -> None:
    assert Rate.parse("10/month")[0].period_ns == 30 * 86_400 * S


def durations() -> None:
    made = Rate(10, timedelta(minutes=2), burst=20)
    assert (made.limit, made.period_ns, made.burst) == (10, 120 * S, 20)
    assert Rate(10, "min").period_ns == 60 * S


def state_fields() -> None:
    decision = Limiter("60/min burst 10", clock=ManualClock(S)).hit("k", 4)
    assert (decision.allowed, decision.limit, decision.remaining) == (True, 60, 6)
    assert (decision.retry_after, decision.reset_after) == (0.0, 4.0)


def fresh_keys(rate: str, algorithm: str = "gcra") -> None:
    """A key never seen has its whole burst, at any time."""
    clock = ManualClock()
    limiter = Limiter(rate, algorithm=algorithm, clock=clock)  # type: ignore[arg-type]
    for index in range(4096):
        clock.set(30 * S + index * 17_300_000)
        peeked = limiter.peek(index)
        assert peeked.remaining == limiter.rates[0].burst
        assert (peeked.retry_after, peeked.reset_after) == (0.0, 0.0)
        assert limiter.hit(index).remaining == limiter.rates[0].burst - 1


def race(algorithm: str, quota: int) -> Scenario:
    """Many threads never get more than the quota, and get all of it."""

    def play() -> None:
        limiter = Limiter(f"{quota}/min", algorithm=algorithm, clock=ManualClock(S))  # type: ignore[arg-type]
        admitted: list[int] = []
        workers = [
            threading.Thread(target=lambda: admitted.append(sum(limiter.allow("k") for _ in range(313))))
            for _ in range(8)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sum(admitted) == quota

    return Scenario(f"{algorithm}-race_for_{quota}", play)


def default_key() -> None:
    limiter = Limiter("2/h")
    assert limiter.hit().remaining == 1
    assert limiter.hit("").remaining == 0


def none_key() -> None:
    with pytest.raises(TypeError, match="key must be"):
        Limiter("1/h").hit(None)  # type: ignore[arg-type]


def timeout_refused(value: object) -> Scenario:
    def play() -> None:
        with pytest.raises((ValueError, TypeError)):
            Limiter("1/h").acquire("k", timeout=value)  # type: ignore[arg-type]

    return Scenario(f"timeout-refuses_{value!r}", play)


def timeout_zero() -> None:
    limiter = Limiter("1/h")
    assert limiter.acquire("k", timeout=0)
    assert not limiter.acquire("k", timeout=0)


def waits(limiter: Limiter, clock: ManualClock, key: str = "k") -> int:
    """Acquire in a thread while the clock moves; return when it came, ns."""
    done: list[int] = []

    def wait() -> None:
        limiter.acquire(key)
        done.append(clock.now_ns)

    waiter = threading.Thread(target=wait)
    waiter.start()
    while waiter.is_alive():
        clock.advance(S // 100)
        waiter.join(0.002)
    return done[0]


def waits_for_its_token() -> None:
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock)
    assert limiter.allow("k")
    assert waits(limiter, clock) >= S


def long_wait_is_refused_at_once() -> None:
    limiter = Limiter("1/s", clock=ManualClock())
    assert limiter.allow("k")
    assert not limiter.acquire("k", timeout=0.5)


def too_large_a_cost_is_refused_at_once() -> None:
    with pytest.raises(CostTooLargeError):
        Limiter("1/s", clock=ManualClock()).acquire("k", 2, timeout=1)


def context_manager() -> None:
    limiter = Limiter("1/s", clock=ManualClock())
    with limiter.slot("k", timeout=0) as decision:
        assert decision
    with pytest.raises(RateLimitExceeded) as refused, limiter.slot("k", timeout=0):
        pass
    decision = refused.value.decision
    assert (decision.remaining, decision.reset_after, decision.retry_after) == (0, 1.0, 1.0)


def hook_sees_the_result() -> None:
    refused: list[object] = []

    def alert(key: object, decision: Decision) -> None:
        if not decision:
            refused.append(key)

    limiter = Limiter("1/h", on_decision=alert)
    limiter.allow("a")
    assert refused == []
    limiter.allow("a")
    assert refused == ["a"]


def hook_once_with_retries() -> None:
    calls: list[object] = []
    clock = ManualClock()
    limiter = Limiter("1/s", clock=clock, on_decision=lambda key, _: calls.append(key))
    limiter.acquire("k")
    waits(limiter, clock)
    assert calls == ["k", "k"]


def hooks_in_order() -> None:
    order: list[str] = []
    hooks = [lambda *_: order.append("A"), lambda *_: order.append("B")]

    def all_hooks(key: object, decision: object) -> None:
        for hook in hooks:
            hook(key, decision)

    Limiter("1/h", on_decision=all_hooks).allow("k")
    assert order == ["A", "B"]


def no_hooks() -> None:
    assert Limiter("1/h", on_decision=None).allow("k")


def unknown_algorithm() -> None:
    with pytest.raises(ValueError, match="algorithm must be one of 'gcra'"):
        Limiter("1/h", algorithm="leaking_bucket")  # type: ignore[arg-type]


def least_recent_key_stays() -> None:
    limiter = Limiter("1/h", max_keys=10, on_full="deny")
    assert all(limiter.allow(key) for key in range(10))
    assert not limiter.allow(10)
    assert not limiter.allow(0)
    assert limiter.stats().evicted_live == 0


SCENARIOS = [
    # quotas
    reads("100/s", 100, 1),
    reads("100 per second", 100, 1),
    reads("100 per seconds", 100, 1),
    reads("60/min", 60, 60),
    reads("60 per minute", 60, 60),
    reads("5 per hours", 5, 3600),
    reads("10/day", 10, 86_400),
    reads("10/wk", 10, 604_800),
    reads("7 / m burst 9", 7, 60, 9),
    reads("1/s burst 1", 1, 1, 1),
    Scenario("quota-two_rules", two_rules),
    refuses(""),
    refuses("burst=1"),
    refuses("1/s burst 1 burst 2"),
    refuses("0/s"),
    refuses("not-a-rule"),
    refuses(123),
    Scenario("quota-month", month_is_read, "a month is read: it has 30 days"),
    Scenario("quota-timedelta", durations),
    Scenario(
        "state-fields", state_fields, "`limit` is the limit of the rate, not its burst: `peek` tells the room"
    ),
    # algorithms
    script(
        "token_bucket-limit",
        "60/min burst 10",
        "+1 hit left9 empty1 +1 hit5 left5 empty5 hit5 left0 no wait1",
    ),
    script("token_bucket-peek", "60/min burst 10", "left10 empty0 hit5 left5 empty5 +1 left6 empty4"),
    script("token_bucket-fractions", "54/min burst 600", "hit600 +1000 left600 hit600 +10.000001 hit9 no"),
    script(
        "gcra-limit", "60/min burst 10", "hit left9 hit9 left0 no wait1 +1 hit no +0.5 no wait0.5 +9.5 left10"
    ),
    script("gcra-peek", "60/min burst 10", "left10 hit5 left5 +1 left6 empty4 hit6 left0 empty10"),
    Scenario("gcra-fresh_key_is_admitted", lambda: fresh_keys("1/min")),
    Scenario("gcra-fresh_key_has_its_burst", lambda: fresh_keys("3/s burst 1")),
    script("leaking_bucket-limit", "60/min burst 10", "hit10 left0 no wait1 +5 hit5 no +10 left10"),
    script("leaking_bucket-peek", "60/min burst 10", "left10 hit10 full wait1 +1 fit left1"),
    script(
        "fixed_window-limit",
        "5/min",
        "hit left4 hit4 left0 no +60 hit left4",
        LOG,
        by_design="fixed windows are not offered; the sliding one opens a period after the hits",
    ),
    script("fixed_window-peek", "5/min", "left5 empty0 hit5 full left0", LOG),
    script("sliding_window-limit", "5/min", "hit left4 +30 hit4 no +30 hit no +30 left4", LOG),
    script("sliding_window-peek", "5/min", "left5 hit2 left3 +60 left5 empty0", LOG),
    race("gcra", 1),
    race("gcra", 10),
    race("gcra", 1000),
    race(LOG, 100),
    race(WINDOW, 1000),
    # the object
    Scenario("key-default", default_key, "without a key there is one bucket, that of the empty text"),
    Scenario("key-none", none_key),
    timeout_refused(-2),
    timeout_refused("a"),
    Scenario("timeout-zero", timeout_zero, "a timeout of 0 is a call that does not wait"),
    Scenario("timeout-waits_for_its_token", waits_for_its_token),
    Scenario(
        "timeout-refused_at_once",
        both(long_wait_is_refused_at_once, too_large_a_cost_is_refused_at_once),
    ),
    Scenario("context_manager", context_manager),
    Scenario("hook-sees_the_result", hook_sees_the_result),
    Scenario("hook-once_with_retries", hook_once_with_retries),
    Scenario("hook-order", both(hooks_in_order, no_hooks), "one hook: a function may call several"),
    Scenario(
        "store-full",
        both(least_recent_key_stays, unknown_algorithm),
        "a full table refuses a new key or shares a bucket; it never forgets a key in debt to make room",
    ),
]


@scenarios("throttled", SCENARIOS)
def test_scenario(scenario):
    run(scenario)


def test_all_are_here():
    assert len(SCENARIOS) == 50
