"""The scenarios of the suite of limits (strategies, parser, limit items, concurrency), replayed."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate, Stats

from tests.native.peers import Scenario, both, run, scenarios, script

LOG: Final = "sliding_log"
WINDOW: Final = "sliding_window"
NO_FIXED = (
    "fixed windows are not offered, they admit twice the limit around a boundary; a sliding one is stricter"
)
NO_STORE = "states are kept in the process or in Redis alone"
S = 10**9


def reads(text: str, *seconds: int, limit: int = 1) -> Scenario:
    def play() -> None:
        rates = Rate.parse(text)
        assert [(rate.limit, rate.period_ns) for rate in rates] == [(limit, each * S) for each in seconds]

    return Scenario(f"parser-{text.replace(' ', '_').replace('/', '÷')}", play)


def refuses(text: object) -> Scenario:
    def play() -> None:
        with pytest.raises((ValueError, TypeError)):
            Rate.parse(text)  # type: ignore[arg-type]
        with pytest.raises((ValueError, TypeError)):
            Limiter(text)  # type: ignore[arg-type]

    return Scenario(f"parser-refuses_{str(text).replace(' ', '_')}", play)


def equal_rates() -> None:
    assert Rate(1, 1) == Rate(1, "s")
    assert Rate(1, 1) != Rate(1, 2)
    assert Rate(1, 1) != Rate(2, 1)
    assert Rate(1, 1) != "something else"


def hashed_rates() -> None:
    counted = Counter([Rate(1, 1), Rate(1, 1), Rate(1, 2), Rate(1, 2), Rate(1, 2, name="other")])
    assert sorted(counted.values()) == [1, 2, 2]


def ordered_rates() -> None:
    words = "1/s 1/min 1/h 1/day 1/month 1/year".split()
    rates = [Rate.parse(word)[0] for word in words]
    shuffled = rates[::-1]
    assert sorted(shuffled) == rates
    assert max(rates) == rates[-1]


def readable_rate() -> None:
    assert str(Rate(10, "min")) == "10/min"
    assert Rate.parse(str(Rate(3, "2h", burst=5)))[0].burst == 5


def keys_are_apart(*keys) -> Scenario:
    def play() -> None:
        limiter = Limiter("1/h")
        assert [limiter.allow(key) for key in keys] == [True] * len(keys)

    return Scenario(f"items-keys_{'_'.join(map(repr, keys))}", play)


def none_is_no_key() -> None:
    limiter = Limiter("1/h")
    for key in (None, ("a", None, None)):
        with pytest.raises(TypeError, match="not NoneType"):
            limiter.hit(key)  # type: ignore[arg-type]


def namespaces() -> None:
    limiter = Limiter("1/h")
    assert limiter.allow(("LIMITER", "a"))
    assert limiter.allow(("OTHER", "a"))
    assert not limiter.allow(("OTHER", "a"))


def race(algorithm: str, threads: int, calls: int) -> Scenario:
    def play() -> None:
        limiter = Limiter("100/s", algorithm=algorithm, clock=ManualClock(S))  # type: ignore[arg-type]
        for number in range(1000):
            limiter.allow(f"other {number}")
        admitted: list[int] = []

        def work() -> None:
            admitted.append(sum(limiter.allow("k") for _ in range(calls)))

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sum(admitted) == 100

    return Scenario(f"concurrency-{algorithm}_{threads}_threads_of_{calls}", play)


async def async_strategy() -> None:
    clock = ManualClock(S)
    limiter = Limiter("10/2s", algorithm=LOG, clock=clock)
    assert all([await limiter.hit_async("k") for _ in range(10)])
    assert not await limiter.hit_async("k")
    clock.advance(2 * S)
    assert (await limiter.hit_async("k", 5)).remaining == 5


async def async_clear() -> None:
    limiter = Limiter("5/min", algorithm=LOG, clock=ManualClock())
    assert await limiter.hit_async("k", 5)
    limiter.reset("k")
    assert await limiter.hit_async("k")


def several_rates_at_once() -> None:
    limiter = Limiter("2/s, 3/min", clock=(clock := ManualClock(S)))
    assert [limiter.allow("k") for _ in range(3)] == [True, True, False]
    clock.advance(S)
    assert [limiter.allow("k") for _ in range(2)] == [True, False]
    # One that refuses takes nothing from the other.
    assert limiter.hit("k").policy == "3/min"


def clears_all() -> None:
    # There is no call for it: a new limiter is as cheap as clearing the old one.
    limiter = Limiter("1/h")
    assert limiter.allow("a")
    limiter = Limiter(*limiter.rates)
    assert limiter.allow("a")


def is_healthy() -> None:
    limiter = Limiter("1/h")
    limiter.ping()
    assert limiter.stats().last_error is None


def expired_keys_go() -> None:
    limiter = Limiter("1/s", clock=(clock := ManualClock(S)), max_keys=10_000)
    for number in range(5000):
        limiter.allow(number)
    clock.advance(2 * S)
    for number in range(5000, 10_000):
        limiter.allow(number)
    stats: Stats = limiter.stats()
    assert stats.evicted_idle > 0
    assert stats.keys < 10_000


SCENARIOS = [
    # strategies
    script("fixed_window", "10/2s", "hit*10 +1 no left0 empty1 +1 left10 hit", LOG),
    script("fixed_window_boundary", "10/2s", "+1.9 hit*10 +0.1 no", LOG, by_design=NO_FIXED),
    script("fixed_window_empty_stats", "10/2s", "left10 empty0", LOG),
    script("fixed_window_multiple_cost", "10/2min", "a:no11 b:hit5 b:left5 b:no6", LOG),
    script("fixed_window_test", "2/h", "hit fit hit full no", LOG),
    script(
        "elastic_expiry",
        "10/2s",
        "hit*10 +1 no +1 hit",
        LOG,
        by_design="a refused call costs nothing, so asking again does not extend the wait",
    ),
    script("elastic_expiry_multiple_cost", "10/2s", "a:no11 b:hit5 b:left5 b:empty2 b:no6", LOG),
    script("sliding_counter", "10/2s", "hit*5 +1 hit*5 no left0", WINDOW),
    script("sliding_counter_empty_stats", "10/2s", "left10 empty0", WINDOW),
    script("sliding_counter_total_cost", "10/2s", "hit10 no left0", WINDOW),
    script("sliding_counter_multiple_cost", "10/2min", "a:no11 b:hit5 b:left5 b:no6", WINDOW),
    script("sliding_counter_test", "2/h", "hit fit hit full no", WINDOW),
    script(
        "sliding_counter_weighs_the_last_window",
        "10/2s",
        "hit10 +2.5 left10",
        WINDOW,
        by_design="units count in full until they leave the window, not by a weight that takes them as even",
    ),
    script("sliding_counter_previous_window", "5/1min", "hit*5 +70 hit*5 no", WINDOW),
    script("moving_window_empty_stats", "10/2s", "left10 empty0", LOG),
    script("moving_window_stats", "2/min", "hit +1 hit +1 no left0 wait58", LOG),
    script("moving_window", "10/2s", "hit*5 +1.9 hit*5 no", LOG),
    script("moving_window_later", "10/2s", "hit*5 +1.9 hit*5 +0.1 hit*5 no", LOG),
    script(
        "moving_window_in_steps",
        "10/min",
        "hit*2 left8 +10 hit*2 +10 hit*2 +10 hit*2 +10 hit*2 no +20 left2",
        LOG,
    ),
    script("moving_window_all_gone", "10/min", "hit*10 +60 left10", LOG),
    script("moving_window_multiple_cost", "10/2s", "a:no11 hit5 +1.9 hit*5 no +0.1 hit*5 left0 no2", LOG),
    script("moving_window_varying_cost", "5/min", "hit5 no2 clear hit", LOG),
    script("moving_window_huge_cost", "1000000/min", "hit1000000 no2 clear hit", LOG),
    script("moving_window_test", "2/h", "hit fit hit full no", LOG),
    script("moving_window_expiry", "2/s", "hit*2 +0.999999999 no +0.000000001 hit*2 no", LOG),
    script("clear_one_key", "1/h", "a:hit b:hit a:clear a:hit b:no", LOG),
    script("cost_zero", "1/h", "hit0*5 hit hit0 no", LOG),
    Scenario("strategies-async", async_strategy),
    Scenario("strategies-async_clear", async_clear),
    Scenario("strategies-several_limits", several_rates_at_once),
    Scenario(
        "storage-clear_all", clears_all, "a limiter cannot be cleared as a whole; another one is as cheap"
    ),
    Scenario("storage-check", is_healthy),
    Scenario("storage-expired_keys_go", expired_keys_go),
    Scenario(
        "storage-memcached_has_no_moving_window",
        lambda: refuses_algorithm("memcached"),
        NO_STORE,
    ),
    Scenario("storage-mongodb", lambda: refuses_algorithm("mongodb"), NO_STORE),
    # parser
    reads("1 per second", 1),
    reads("1/SECOND", 1),
    reads("1 / Second", 1),
    reads("1 per minute", 60),
    reads("1/MINUTE", 60),
    reads("1 per hour", 3600),
    reads("1/HOUR", 3600),
    reads("1 per day", 86_400),
    reads("1 / Day", 86_400),
    reads("1 per month", 30 * 86_400),
    reads("1/Year", 365 * 86_400),
    reads("1 per 3 hour", 3 * 3600),
    reads("1 per 2 hours", 2 * 3600),
    reads("1/2 day", 2 * 86_400),
    reads("1 per 3 hour; 1 per second", 3 * 3600, 1),
    reads("1 per 3 hour, 1 per second", 3 * 3600, 1),
    refuses(None),
    refuses("1 per millenium"),
    refuses("meow"),
    refuses("1 per yearl; 2 per decade"),
    # items
    keys_are_apart(("a", "b", "c"), ("a", "b"), "a/b/c"),
    keys_are_apart(("a", 1), ("a", "1"), "a/1"),
    keys_are_apart((b"a", "b"), ("a", "b"), "a/b"),
    Scenario(
        "items-none_in_a_key", none_is_no_key, "None is no key: a value that is missing must not be a bucket"
    ),
    Scenario("items-namespace", namespaces),
    Scenario("items-equality_and_hash", both(equal_rates, hashed_rates)),
    Scenario("items-order_and_text", both(ordered_rates, readable_rate)),
    # concurrency
    race(LOG, 100, 10),
]


def refuses_algorithm(_store: str) -> None:
    with pytest.raises(ValueError, match="algorithm must be one of"):
        Limiter("1/h", algorithm="fixed_window")  # type: ignore[arg-type]


@scenarios("limits", SCENARIOS)
def test_scenario(scenario):
    run(scenario)


def test_all_are_here():
    assert len(SCENARIOS) == 63
