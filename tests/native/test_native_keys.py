"""Keys, the cap on their number, and the behaviour of a full table."""

from collections import defaultdict
from typing import Any

import pytest
from hopgate_limiter import Limiter, ManualClock, Rate
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budgets import examples

# A busy machine is no reason to fail.
quick = settings(max_examples=examples(60))

policies = pytest.mark.parametrize("on_full", ["deny", "shared_bucket", "evict_idle"])


def test_keys_of_different_types_are_distinct():
    """Text, bytes and numbers are different keys; a number of any size is a key."""
    limiter = Limiter("1/h")
    numbers = [1, 0, -1, 2**63, -(2**63), 2**64, 2**128, -(2**128), 10**5000]
    keys: list[str | bytes | int] = ["1", b"1", "", b"", "é", "\ud800", "1\0", *numbers]
    assert all(limiter.allow(key) for key in keys)
    assert not any(limiter.allow(key) for key in keys)
    assert limiter.stats().keys == len(keys)


def test_equal_keys_are_one_key():
    """Equality of values counts, not identity of objects."""
    limiter = Limiter("1/h")
    assert limiter.allow("".join(["a", "b"]))
    assert not limiter.allow("ab")
    assert limiter.allow(True)
    assert not limiter.allow(1)


@pytest.mark.parametrize("key", [None, 1.5, ["a"], bytearray(b"a"), object()])
def test_other_types_are_not_keys(key):
    """The message names the type."""
    limiter = Limiter("1/h")
    for call in (limiter.allow, limiter.hit, limiter.peek, limiter.refund, limiter.reset):
        with pytest.raises(
            TypeError, match=f"key must be str, .* or an IP address, not {type(key).__name__}"
        ):
            call(key)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (-1, ValueError, "cost must be at least 0, got -1"),
        (-(2**70), ValueError, "cost must be at least 0"),
        (2**63, OverflowError, r"cost must be below 2\*\*63, got 9223372036854775808"),
        (2**64, OverflowError, "cost must be below"),
        (1.5, TypeError, "cost must be int"),
        ("1", TypeError, "cost must be int"),
        (None, TypeError, "cost must be int"),
    ],
)
def test_bad_costs(cost, error, message):
    """A cost is refused before anything is taken."""
    limiter = Limiter("5/h")
    for call in (limiter.allow, limiter.hit, limiter.peek, limiter.refund):
        with pytest.raises(error, match=message):
            call("k", cost)
    with pytest.raises(error, match=message):
        limiter.hit_many([("k", 1), ("k", cost)])
    assert limiter.peek("k").remaining == 5


def test_hit_many_equals_single_hits():
    """One call, one instant, the decisions of single hits in order."""
    clock = ManualClock(3)
    one, many = Limiter("3/s; 5/h", clock=clock), Limiter("3/s; 5/h", clock=clock)
    items: list[tuple[str | bytes | int, int]] = [
        ("a", 1),
        ("b", 3),
        ("a", 2),
        ("a", 1),
        (7, 1),
        (b"a", 4),
        ("b", 0),
    ]

    assert [repr(d) for d in many.hit_many(items)] == [repr(one.hit(k, c)) for k, c in items]
    assert many.hit_many([]) == []


def test_bad_item_takes_nothing():
    """hit_many reads every item first."""
    limiter = Limiter("5/h")
    wrong: list[Any] = [[("a", 1), (1.5, 1)], [("a", 1), ("a",)], [("a", 1), 5]]
    for bad in wrong:
        with pytest.raises((TypeError, ValueError)):
            limiter.hit_many(bad)
    assert limiter.stats().keys == 0


@policies
@quick
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.sampled_from([0, 1, 10, 40])), max_size=60),
)
def test_full_table_grants_no_key_more(on_full, max_keys, calls):
    """TB11: with room or without, no key gets more than its own bucket admits."""
    clock = ManualClock()
    small = Limiter(Rate(1, "10ns", burst=3), max_keys=max_keys, on_full=on_full, clock=clock)
    alone: defaultdict[str, Limiter] = defaultdict(lambda: Limiter(Rate(1, "10ns", burst=3), clock=clock))
    for key, cost, wait in calls:
        clock.advance(wait)
        if small.allow(key, cost):
            assert alone[key].allow(key, cost)
        assert small.stats().keys <= max_keys
        assert small.stats().evicted_live == 0


@policies
@quick
@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0, 10, 40])), max_size=200))
def test_evicting_idle_keys_changes_no_decision(on_full, calls):
    """TB11: while all live keys fit, a small table decides like a large one."""
    clock = ManualClock()
    # At most 5 keys are in debt at a time: a token flows in within 10 ns and every 5th call waits.
    small = Limiter(Rate(1, "10ns", burst=2), max_keys=200, on_full=on_full, clock=clock)
    large = Limiter(Rate(1, "10ns", burst=2), max_keys=10**6, clock=clock)
    for key, wait in calls:
        clock.advance(wait)
        assert repr(small.hit(key)) == repr(large.hit(key))


@policies
def test_idle_keys_are_evicted_as_others_arrive(on_full):
    """A stream of keys seen once each needs room only for the keys in debt."""
    clock = ManualClock()
    limiter = Limiter(Rate(1, "10ns"), max_keys=64, on_full=on_full, clock=clock)
    for key in range(5_000):
        assert limiter.allow(key)
        clock.advance(1)

    stats = limiter.stats()
    assert stats.keys <= 64
    assert stats.keys + stats.evicted_idle == 5_000
    assert stats.overflowed == stats.evicted_live == 0


def test_full_table_denies():
    """on_full="deny": a new key is refused while all others are in debt, and admitted once one is idle."""
    clock = ManualClock()
    limiter = Limiter("1/s", max_keys=2, on_full="deny", clock=clock)
    assert limiter.allow("a")
    assert limiter.allow("b")
    refused = limiter.hit("c")
    assert not refused
    assert not limiter.peek("c")
    assert refused.remaining == 0
    assert refused.retry_after == 1.0
    assert limiter.allow("c", 0)

    clock.advance(10**9)
    assert limiter.allow("c")


@pytest.mark.parametrize("on_full", ["shared_bucket", "evict_idle"])
def test_full_table_shares_one_bucket(on_full):
    """Keys without room share one bucket, and take its debt with them when they get room."""
    clock = ManualClock()
    limiter = Limiter(Rate(1, "1s", burst=3), max_keys=2, on_full=on_full, clock=clock)
    assert limiter.allow("a", 1)
    assert limiter.allow("b", 3)
    assert [limiter.allow(key) for key in "cdef"] == [True, True, True, False]
    assert limiter.stats().overflowed == 4

    clock.advance(10**9)
    assert limiter.peek("c").remaining == 1
    assert limiter.allow("c")
    assert not limiter.allow("c")
    assert limiter.stats().evicted_idle == 1


def test_live_key_survives_a_flood():
    """A client over its quota does not regain it by sending other keys."""
    limiter = Limiter("1/h", max_keys=100, clock=ManualClock())
    assert limiter.allow("victim")
    for key in range(10_000):
        limiter.allow(key)
    assert not limiter.allow("victim")
    assert limiter.stats().keys == 100


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])
def test_table_growth_keeps_states_separate(algorithm):
    """Growth moves every key with its own state."""
    limiter = Limiter("3/h; 100/d", algorithm=algorithm, clock=ManualClock(10**15))
    for key in range(20_000):
        assert limiter.allow(key, key % 3 + 1)
    assert all(limiter.peek(key).remaining == 2 - key % 3 for key in range(20_000))
    assert limiter.stats().keys == 20_000


@pytest.mark.parametrize("max_keys", [-1, 0, 2**32 + 1])
def test_max_keys_is_bounded(max_keys):
    """1 to 2³²."""
    with pytest.raises(ValueError, match=rf"max_keys must be 1 to 2\*\*32, got {max_keys}"):
        Limiter("1/s", max_keys=max_keys)


def test_stats_count():
    """Each decision is counted once; peek is not."""
    limiter = Limiter("2/h")
    limiter.allow("a")
    limiter.hit("a")
    limiter.hit("a")
    limiter.peek("a")
    limiter.hit_many([("b", 1), ("b", 5)])
    stats = limiter.stats()

    assert (stats.allowed, stats.denied, stats.keys) == (3, 2, 2)
    assert "allowed=3, denied=2, keys=2" in repr(stats)


def test_shadow_mode_admits_every_call():
    """shadow=True: everything passes, refusals are marked, counted and not charged."""
    clock = ManualClock()
    limiter = Limiter("1/s", shadow=True, clock=clock)
    assert limiter.hit("k").source == "local"
    assert limiter.allow("k")
    seen = limiter.hit("k")

    assert seen
    assert seen.source == "shadow"
    assert seen.retry_after == 0.0
    assert limiter.stats().denied == 2
    clock.advance(10**9)
    assert limiter.hit("k").source == "local"


def test_close_is_harmless():
    """A limiter in one process has nothing to stop."""
    limiter = Limiter("1/h")
    limiter.close()
    limiter.close()
    assert limiter.allow("k")
