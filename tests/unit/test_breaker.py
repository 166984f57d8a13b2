from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from app.resilience.breaker import Breaker, BreakerPolicy, State

POLICY = BreakerPolicy(min_calls=4, window_s=5, slow_s=0.05, open_s=1.0, longest_open_s=8.0, probes=2)


def breaker(policy: BreakerPolicy = POLICY, *, draw: float = 0.5) -> Breaker:
    return Breaker(policy, random=lambda: draw)  # 0.5 is no jitter at all


def make(call: Breaker, now: float, *outcomes: bool, took_s: float = 0.0) -> None:
    """Make calls one after the other; True for those that fail."""
    for failed in outcomes:
        permit = call.admit(now)
        assert permit is not None
        call.settle(permit, now, took_s=took_s, failed=failed)


def opened(now: float = 10.0) -> Breaker:
    one = breaker()
    make(one, now, True, True, True, True)
    return one


def test_few_calls_prove_nothing():
    one = breaker()

    make(one, 10, True, True, True)

    assert one.state(10) is State.CLOSED


def test_a_call_that_goes_well_opens_nothing():
    """A dependency whose outage few calls have met is back: it must not be left alone for it."""
    one = breaker()
    make(one, 10, True, True, True)

    make(one, 11, False)

    assert one.state(11) is State.CLOSED
    make(one, 11, True)
    assert one.state(11) is State.OPEN


def test_it_opens_when_half_of_the_calls_fail():
    one = breaker()

    make(one, 10, False, True, False, True)

    assert one.state(10) is State.OPEN
    assert one.admit(10.99) is None


def test_silence_opens_it_though_the_window_is_full_of_successes():
    one = breaker(BreakerPolicy(silent_s=0.1))
    make(one, 10, *[False] * 1000)

    make(one, 11, True, True, True, True)
    make(one, 11.05, *[True] * 100)  # all at once: a pause of this process looks like that too
    assert one.state(11.05) is State.CLOSED

    make(one, 11.2, True)
    assert one.state(11.2) is State.OPEN


def test_one_success_ends_a_silence():
    one = breaker(BreakerPolicy(silent_s=0.1))
    make(one, 10, *[False] * 1000)

    make(one, 11, True, True, False, True, True)
    make(one, 12, False, True)

    assert one.state(12) is State.CLOSED


def test_held_closed_by_hand_it_is_never_said_to_fail():
    one = breaker()
    one.force(State.CLOSED)

    make(one, 10, True)

    assert not one.is_failing


def test_few_failures_are_no_silence():
    one = breaker(BreakerPolicy(silent_s=0.1))
    make(one, 10, *[False] * 1000)

    make(one, 11, True)
    make(one, 20, True)

    assert one.state(20) is State.CLOSED


def test_it_opens_when_most_calls_are_slow_though_none_fails():
    one = breaker()

    make(one, 10, False)
    make(one, 10, False, False, False, False, took_s=0.05)

    assert one.state(10) is State.OPEN


def test_a_tenth_of_slow_calls_does_not_open_it():
    one = breaker()
    for second in range(100):
        make(one, second, *[False] * 9)
        make(one, second, False, took_s=0.08)

    assert one.opened_total == 0


def test_failures_older_than_the_window_are_forgotten():
    one = breaker()
    make(one, 10, True, True, True)

    make(one, 15, True)

    assert one.state(15) is State.CLOSED
    assert one.counts(15) == (1, 1, 0)


def test_probes_are_bounded_and_successes_close_it():
    one = opened()

    first, second = one.admit(11), one.admit(11)
    assert None not in {first, second}
    assert one.admit(11) is None
    one.settle(first, 11, took_s=0, failed=False)
    third = one.admit(11)
    assert one.state(11) is State.HALF_OPEN
    one.settle(second, 11, took_s=0, failed=False)

    assert one.state(11) is State.CLOSED
    one.settle(third, 11, took_s=0, failed=True)  # of another state: it changes nothing
    assert one.counts(11) == (0, 0, 0)


@pytest.mark.parametrize(("failed", "took_s"), [(True, 0), (False, 0.05)], ids=["failed", "slow"])
def test_one_bad_probe_opens_it_again_and_for_longer(failed, took_s):
    one = opened()

    one.settle(one.admit(11), 11, took_s=took_s, failed=failed)

    assert one.admit(12.99) is None
    assert one.admit(13) is not None


def test_a_cancelled_probe_makes_room_for_another():
    one = opened()
    probes = [one.admit(11), one.admit(11)]
    assert one.admit(11) is None

    one.withdraw(probes[0])

    assert one.admit(11) is not None
    assert one.state(11) is State.HALF_OPEN


def test_a_call_that_was_under_way_when_it_opened_is_ignored():
    one = breaker()
    late = one.admit(10)
    make(one, 10, True, True, True, True)
    probe = one.admit(11)

    one.settle(late, 11, took_s=1, failed=True)

    assert one.state(11) is State.HALF_OPEN
    one.settle(probe, 11, took_s=0, failed=False)
    assert one.state(11) is State.HALF_OPEN  # the late one did not count as a probe either


def test_one_that_flaps_is_left_alone_longer_and_longer_and_one_that_is_well_is_forgiven():
    one = breaker()
    now, waits = 10.0, []
    for _ in range(5):
        make(one, now, True, True, True, True)
        began = now
        while one.state(now) is State.OPEN:
            now += 0.125
        waits.append(now - began)
        make(one, now, False, False)
        assert one.state(now) is State.CLOSED
    assert waits == [1, 2, 4, 8, 8]

    now += POLICY.window_s
    make(one, now, True, True, True, True)
    assert one.admit(now + 1) is not None


@pytest.mark.parametrize(("draw", "wait_s"), [(0.0, 0.8), (0.999999, 1.2)])
def test_the_open_time_is_jittered(draw, wait_s):
    one = breaker(draw=draw)
    make(one, 10, True, True, True, True)

    assert one.admit(10 + wait_s - 0.001) is None
    assert one.admit(10 + wait_s) is not None


def test_it_can_be_held_open_and_closed_by_hand():
    one = breaker()
    one.force(State.OPEN)
    assert one.admit(10) is None
    assert one.admit(math.inf) is None
    assert one.state(1e9) is State.OPEN

    one.force(State.CLOSED)
    make(one, 10, *[True] * 50)
    assert one.admit(10) is not None

    one.force(None)
    make(one, 10, *[True] * 4)
    assert one.state(10) is State.OPEN
    with pytest.raises(ValueError, match="half-open"):
        one.force(State.HALF_OPEN)


class Machine(RuleBasedStateMachine):
    """The breaker against a model that keeps every call of the present state in a list."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = breaker()
        self.now = 100.0
        self.state = State.CLOSED
        self.epoch = 0
        self.calls: list[tuple[int, bool, bool]] = []
        self.until = 0.0
        self.closed_at = -math.inf
        self.openings = 0
        self.probing = 0
        self.proven = 0

    def enter(self, state: State) -> None:
        self.state = state
        self.epoch += 1
        self.calls, self.probing, self.proven = [], 0, 0

    def open(self) -> None:
        if self.state is State.CLOSED and self.now - self.closed_at >= POLICY.window_s:
            self.openings = 0
        self.until = self.now + min(POLICY.longest_open_s, POLICY.open_s * 2**self.openings)
        self.openings += 1
        self.enter(State.OPEN)

    def recent(self) -> list[tuple[int, bool, bool]]:
        return [call for call in self.calls if call[0] > int(self.now) - POLICY.window_s]

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.0, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=permits)
    def ask(self) -> tuple[int | None, int]:
        permit = self.breaker.admit(self.now)
        if self.state is State.OPEN and self.now >= self.until:
            self.enter(State.HALF_OPEN)
        expected = self.state is State.CLOSED
        if self.state is State.HALF_OPEN and self.probing < POLICY.probes:
            self.probing += 1
            expected = True
        assert (permit is not None) == expected
        return permit, self.epoch

    @rule(permit=permits, failed=st.booleans(), slow=st.booleans())
    def answer(self, permit, failed: bool, slow: bool) -> None:
        if permit[0] is None:
            return
        number, epoch = permit
        # A permit is handed back once; what is left of it afterwards belongs to a state that is over.
        if epoch == self.epoch and self.state is State.HALF_OPEN and self.probing == 0:
            return
        self.breaker.settle(number, self.now, took_s=0.06 if slow else 0.01, failed=failed)
        if epoch != self.epoch:
            return
        if self.state is State.HALF_OPEN:
            self.probing -= 1
            if failed or slow:
                self.open()
                return
            self.proven += 1
            if self.proven == POLICY.probes:
                self.closed_at = self.now
                self.enter(State.CLOSED)
            return
        self.calls.append((int(self.now), failed, slow))
        recent = self.recent()
        failures, slow_calls = sum(call[1] for call in recent), sum(call[2] for call in recent)
        if (
            (failed or slow)
            and len(recent) >= POLICY.min_calls
            and (
                failures >= len(recent) * POLICY.failure_ratio
                or slow_calls >= len(recent) * POLICY.slow_ratio
            )
        ):
            self.open()

    @invariant()
    def they_agree(self) -> None:
        state = self.state
        if state is State.OPEN and self.now >= self.until:
            state = State.HALF_OPEN
        assert self.breaker.state(self.now) is state
        assert self.breaker.is_failing == (
            self.state is State.CLOSED and bool(self.calls) and self.calls[-1][1]
        )
        recent = self.recent()
        assert self.breaker.counts(self.now) == (
            len(recent),
            sum(call[1] for call in recent),
            sum(call[2] for call in recent),
        )


TestMachine = Machine.TestCase
