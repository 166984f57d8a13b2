"""Rates given to one call, as for customers with limits of their own."""

import asyncio
import threading

import pytest
from hopgate_limiter import CostTooLargeError, Limiter, ManualClock, Rate, RateLimitExceeded, Reservation
from hypothesis import given
from hypothesis import strategies as st

S = 10**9


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_log", "sliding_window"])
async def test_every_call_is_measured_by_them(clock, algorithm):
    """The limiter's own rates admit one; these admit five."""
    limiter = Limiter("1/h", algorithm=algorithm, clock=clock)
    own = Rate(5, "h", name="gold")
    assert limiter.allow("k", rates=[own])
    assert limiter.hit("k", rates=[own]).remaining == 3
    assert (await limiter.hit_async("k", rates=[own])).policy == "gold"
    assert limiter.peek("k", rates=[own]).remaining == 2
    assert limiter.acquire("k", timeout=0, rates=[own]).remaining == 1
    assert (await limiter.acquire_async("k", timeout=0, rates=[own])).remaining == 0
    refused = limiter.peek("k", rates=[own])
    assert not refused
    assert refused == limiter.hit("k", rates=[own])
    assert not limiter.allow("k", rates=[own])
    limiter.refund("k", 2, rates=[own])
    assert limiter.peek("k", rates=[own]).remaining == 2
    with limiter.slot("k", rates=[own]) as decision:
        assert decision.remaining == 1
    assert limiter.stats().allowed == 6
    assert limiter.hit("other").limit == 1


@pytest.mark.parametrize(
    "rates",
    ["5/h", Rate(5, "h"), ["5/h"], (Rate(5, "h"),), iter(["5/h"])],
    ids=["text", "rate", "texts", "rates", "iterator"],
)
def test_forms(clock, rates):
    """Text, a rate, or several of them."""
    assert Limiter("1/h", clock=clock).hit("k", rates=rates).remaining == 4


def test_several(clock):
    """As many as the limiter has, in its order; text of several is several."""
    limiter = Limiter("1/s; 1/h", clock=clock)
    assert limiter.hit("k", rates="3/s; 2/h").remaining == 1
    assert limiter.hit("k", rates=["3/s", "2/h"]).remaining == 0
    assert limiter.hit("k", rates=["3/s", "2/h"]).policy == "2/h"


@pytest.mark.parametrize(
    ("rates", "error", "message"),
    [
        ([], ValueError, "at least one rate"),
        ("5/h; 5/d", ValueError, "rates must be as many as the limiter has, 1, got 2"),
        ("5/fortnight", ValueError, "cannot read the period"),
        (5, TypeError, "rates must be str, Rate or several of them, not int"),
        ([5], TypeError, "a rate must be Rate or str, not int"),
    ],
)
def test_refused(clock, rates, error, message):
    """By every call, which takes nothing."""
    limiter = Limiter("1/h", clock=clock)
    for call in (
        limiter.allow,
        limiter.hit,
        limiter.peek,
        limiter.acquire,
        limiter.reserve,
        limiter.refund,
        lambda key, rates: limiter.hit_many([(key, 1)], rates=rates),
    ):
        with pytest.raises(error, match=message):
            call("k", rates=rates)
    assert limiter.peek("k").remaining == 1


def test_windows_keep_their_periods(clock):
    """Their states are buckets of one width."""
    limiter = Limiter("1/h", algorithm="sliding_window", clock=clock)
    for call in (limiter.hit, limiter.peek, limiter.reserve, limiter.refund):
        with pytest.raises(ValueError, match="must keep the limiter's periods"):
            call("k", rates="5/min")


def test_peek_is_pure(clock):
    """Peeking by other rates changes nothing for those in force."""
    limiter = Limiter("10/s", clock=clock)
    limiter.hit("k", 10)
    before = limiter.peek("k")
    limiter.peek("k", rates="1/h")
    limiter.peek("new", rates="1/h")
    assert limiter.peek("k") == before
    assert limiter.stats().keys == 1


def test_refund_by_the_rates_of_the_hit(clock):
    """Units cost the time of their own rate; the limiter's would give back another one."""
    limiter = Limiter("1/h burst 100", clock=clock)
    fast = "100/s"
    assert limiter.hit("k", 100, rates=fast)
    limiter.refund("k", 40, rates=fast)
    assert limiter.peek("k", rates=fast).remaining == 40
    assert not limiter.allow("k", 41, rates=fast)


def test_wait_follows_the_clock_of_the_limiter(clock):
    """A caller with rates of its own has no slot, and tries again when the clock moves."""
    limiter = Limiter("1/h", clock=clock)
    assert limiter.allow("k", rates="1/s")
    got = []
    waiter = threading.Thread(target=lambda: got.append(limiter.acquire("k", rates="1/s")))
    waiter.start()
    while not got:
        clock.advance(S // 4)
        waiter.join(0.01)
    assert got[0].allowed
    assert clock.now_ns >= S
    refused = limiter.acquire("k", rates="1/s", timeout=0.5)
    assert not refused
    assert refused.retry_after == 1.0


async def test_wait_under_asyncio(clock):
    """The same, in an event loop."""
    limiter = Limiter("1/h", clock=clock)
    assert limiter.allow("k", rates="1/s")
    task = asyncio.create_task(limiter.acquire_async("k", rates="1/s"))
    while not task.done():
        clock.advance(S // 4)
        await asyncio.sleep(0.001)
    assert task.result().allowed
    assert not await limiter.acquire_async("k", rates="1/s", timeout=0.5)


async def test_wait_that_never_ends_is_refused(clock):
    """A cost above the burst of these rates."""
    limiter = Limiter("100/s", clock=clock)
    with pytest.raises(CostTooLargeError):
        limiter.acquire("k", 6, rates="5/s")
    with pytest.raises(CostTooLargeError):
        await limiter.acquire_async("k", 6, rates="5/s")
    with pytest.raises(RateLimitExceeded), limiter.slot("k", 6, rates="5/s"):
        pass
    with pytest.raises(ValueError, match="timeout must be at least 0"):
        limiter.acquire("k", rates="5/s", timeout=-1)


async def test_wait_by_the_system_clock():
    """Nothing moves it by hand."""
    limiter = Limiter("1/h")
    rates = "100/s burst 1"
    decisions = [await limiter.acquire_async("k", rates=rates) for _ in range(4)]
    decisions += [limiter.acquire("k", rates=rates) for _ in range(4)]
    assert all(decisions)
    assert limiter.stats().allowed == 8


def test_many_at_once(clock):
    """All items by the same rates, in order."""
    limiter = Limiter("1/h", clock=clock)
    decisions = limiter.hit_many([("a", 2), ("b", 1), ("a", 2), ("a", 1)], rates="3/h")
    assert [bool(decision) for decision in decisions] == [True, True, False, True]
    assert {decision.limit for decision in decisions} == {3}
    assert limiter.stats().allowed == 3


def test_slots_are_promised_by_them(clock):
    """One a second, though the limiter's own rate is one an hour."""
    limiter = Limiter("1/h", clock=clock)
    slots = [limiter.reserve("k", rates="1/s") for _ in range(4)]
    assert [slot.delay for slot in slots] == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(RateLimitExceeded) as refused:
        limiter.reserve("k", max_wait=3.9, rates="1/s")
    assert refused.value.decision.policy == "1/s"
    assert limiter.peek("k", rates="1/s").retry_after == 4.0
    slots.pop().cancel()
    assert limiter.reserve("k", rates="1/s").delay == 3.0


def test_slot_that_starts_now_is_given_back(clock):
    """By its own rates: units of the limiter's rate would be another time."""
    for algorithm in ("gcra", "sliding_log", "sliding_window"):
        limiter = Limiter("1/h", algorithm=algorithm, clock=clock)
        limiter.reserve("k", 3, rates="5/h").cancel()
        assert limiter.peek("k", rates="5/h").remaining == 5


def test_waiters_move_up_by_their_own_rates(clock):
    limiter = Limiter("1/h", clock=clock)
    first, second, third = (limiter.reserve("k", rates="1/s") for _ in range(3))
    third._wait_for()
    second.cancel()
    assert third.delay == 1.0
    assert first.delay == 0.0


def test_calls_by_the_rates_of_the_limiter_leave_slots_where_they_are(clock):
    """A bucket of hours has room for a call that those slots do not count against; they keep their times."""
    limiter = Limiter("1/h burst 100", clock=clock)
    slots = [limiter.reserve("k", rates="1/s burst 1") for _ in range(4)]
    assert limiter.hit("k")
    assert [slot.delay for slot in slots] == [0.0, 1.0, 2.0, 3.0]
    assert limiter.reserve("k").delay == 3.0
    limiter.configure("1/h burst 200", "5/d")
    assert all(slot.delay <= delay for slot, delay in zip(slots, (0.0, 1.0, 2.0, 3.0), strict=True))


def test_refusal_by_them_ends_when_it_says(clock):
    """A debt of an hour, cut to a second once and for all: another second later the call fits."""
    limiter = Limiter("1/h", clock=clock)
    assert limiter.hit("k")
    assert limiter.hit("k", rates="1/s").retry_after == 1.0
    clock.advance(S)
    assert limiter.hit("k", rates="1/s")


def test_memory_is_bounded_under_them():
    """A log stores an instant for each unit of the rates in use."""
    limiter = Limiter("10/h", algorithm="sliding_log", max_bytes=5_000)
    with pytest.raises(ValueError, match="max_bytes has room for"):
        limiter.hit("k", rates="100000/h")
    assert limiter.hit("k", rates="3/h")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(0, 3 * S)),
        st.tuples(st.sampled_from(["hit", "peek", "refund", "reserve"]), st.integers(0, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
    ),
    max_size=40,
)


@given(st.sampled_from(["gcra", "sliding_log", "sliding_window"]), STEPS)
def test_as_a_limiter_that_has_these_rates(algorithm, steps):
    """Every call with rates decides as a limiter that was made with them."""
    clock = ManualClock()
    own = Limiter("3/2s", algorithm=algorithm, clock=clock)
    other = Limiter("90/2s", algorithm=algorithm, clock=clock)
    pairs: list[tuple[Reservation, Reservation]] = []
    for step, number in steps:
        if step == "advance":
            clock.advance(number)
        elif step == "cancel":
            if pairs:
                for slot in pairs[number % len(pairs)]:
                    slot.cancel()
        elif step == "reserve":
            if 0 < number < 4:
                pairs.append((own.reserve("k", number), other.reserve("k", number, rates="3/2s")))
        else:
            made = getattr(own, step)("k", number)
            assert getattr(other, step)("k", number, rates="3/2s") == made
        assert all(a.delay == b.delay for a, b in pairs)
