from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from app.resilience.breaker import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(min_calls=4, window_s=5, slow_s=0.05, open_s=1.0, longest_open_s=8.0, probes=2)


def breaker(policy: BreakerPolicy = POLICY, *, draw: float = 0.5) -> Breaker:
    return Breaker(policy, random=lambda: draw)  # 0.5 means no jitter


def make(call: Breaker, now: float, *outcomes: bool, took_s: float = 0.0) -> None:
    """Make calls in sequence; True for a call that fails."""
    for failed in outcomes:
        permit = call.admit(now)
        assert permit is not None
        call.settle(permit, now, took_s=took_s, failed=failed)


def admitted(one: Breaker, now: float) -> int:
    """Return the token of a call that *one* admits."""
    token = one.admit(now)
    assert token is not None
    return token


def opened(now: float = 10.0) -> Breaker:
    one = breaker()
    make(one, now, True, True, True, True)
    return one


def test_few_failures_keep_it_closed():
    one = breaker()

    make(one, 10, True, True, True)

    assert one.state(10) is BreakerState.CLOSED


def test_good_call_never_opens_it():
    """It may complete `min_calls` after an outage that few calls met: the dependency is back."""
    one = breaker()
    make(one, 10, True, True, True)

    make(one, 11, False)

    assert one.state(11) is BreakerState.CLOSED
    make(one, 11, True)
    assert one.state(11) is BreakerState.OPEN


def test_half_of_the_calls_failing_opens_it():
    one = breaker()

    make(one, 10, False, True, False, True)

    assert one.state(10) is BreakerState.OPEN
    assert one.admit(10.99) is None


def test_silence_opens_it_despite_a_window_of_successes():
    one = breaker(BreakerPolicy(silent_s=0.1))
    make(one, 10, *[False] * 1000)

    make(one, 11, True, True, True, True)
    make(one, 11.05, *[True] * 100)  # all at once, as after a pause of this process
    assert one.state(11.05) is BreakerState.CLOSED

    make(one, 11.2, True)
    assert one.state(11.2) is BreakerState.OPEN


def test_single_success_ends_a_silence():
    one = breaker(BreakerPolicy(silent_s=0.1))
    make(one, 10, *[False] * 1000)

    make(one, 11, True, True, False, True, True)
    make(one, 12, False, True)

    assert one.state(12) is BreakerState.CLOSED


def test_few_failures_in_a_row_are_no_silence():
    one = breaker(BreakerPolicy(silent_s=0.1))
    make(one, 10, *[False] * 1000)

    make(one, 11, True)
    make(one, 20, True)

    assert one.state(20) is BreakerState.CLOSED


def test_slow_calls_open_it_without_a_failure():
    one = breaker()

    make(one, 10, False)
    make(one, 10, False, False, False, False, took_s=0.05)

    assert one.state(10) is BreakerState.OPEN


def test_tenth_of_slow_calls_keeps_it_closed():
    one = breaker()
    for second in range(100):
        make(one, second, *[False] * 9)
        make(one, second, False, took_s=0.08)

    assert one.opened_total == 0


def test_failures_leave_with_the_window():
    one = breaker()
    make(one, 10, True, True, True)

    make(one, 15, True)

    assert one.state(15) is BreakerState.CLOSED
    assert one.counts(15) == (1, 1, 0)


def test_probes_are_bounded_and_close_it():
    one = opened()

    first, second = admitted(one, 11), admitted(one, 11)
    assert one.admit(11) is None
    one.settle(first, 11, took_s=0, failed=False)
    third = admitted(one, 11)
    assert one.state(11) is BreakerState.HALF_OPEN
    one.settle(second, 11, took_s=0, failed=False)

    assert one.state(11) is BreakerState.CLOSED
    one.settle(third, 11, took_s=0, failed=True)  # admitted by another state: ignored
    assert one.counts(11) == (0, 0, 0)


@pytest.mark.parametrize(("failed", "took_s"), [(True, 0), (False, 0.05)], ids=["failed", "slow"])
def test_bad_probe_opens_it_again_for_longer(failed, took_s):
    one = opened()

    one.settle(admitted(one, 11), 11, took_s=took_s, failed=failed)

    assert one.admit(12.99) is None
    assert one.admit(13) is not None


def test_withdrawn_probe_makes_room_for_another():
    one = opened()
    probes = [admitted(one, 11), admitted(one, 11)]
    assert one.admit(11) is None

    one.withdraw(probes[0])

    assert one.admit(11) is not None
    assert one.state(11) is BreakerState.HALF_OPEN


def test_call_admitted_before_opening_is_ignored():
    one = breaker()
    late = admitted(one, 10)
    make(one, 10, True, True, True, True)
    probe = admitted(one, 11)

    one.settle(late, 11, took_s=1, failed=True)

    assert one.state(11) is BreakerState.HALF_OPEN
    one.settle(probe, 11, took_s=0, failed=False)
    assert one.state(11) is BreakerState.HALF_OPEN  # nor did the late call count as a probe


def test_flapping_doubles_the_open_time_until_it_recovers():
    one = breaker()
    now, waits = 10.0, []
    for _ in range(5):
        make(one, now, True, True, True, True)
        began = now
        while one.state(now) is BreakerState.OPEN:
            now += 0.125
        waits.append(now - began)
        make(one, now, False, False)
        assert one.state(now) is BreakerState.CLOSED
    assert waits == [1, 2, 4, 8, 8]

    now += POLICY.window_s
    make(one, now, True, True, True, True)
    assert one.admit(now + 1) is not None


@pytest.mark.parametrize(("draw", "wait_s"), [(0.0, 0.8), (0.999999, 1.2)])
def test_open_time_is_jittered(draw, wait_s):
    one = breaker(draw=draw)
    make(one, 10, True, True, True, True)

    assert one.admit(10 + wait_s - 0.001) is None
    assert one.admit(10 + wait_s) is not None


def changes(policy: BreakerPolicy = POLICY) -> tuple[Breaker, list[str]]:
    seen: list[str] = []
    return Breaker(
        policy,
        random=lambda: 0.5,
        on_change=lambda change: seen.append(f"{change.before} → {change.after}: {change.reason}"),
    ), seen


def test_each_change_is_reported_with_its_counts():
    one, seen = changes()
    make(one, 10, False, True, False, True)
    one.settle(admitted(one, 11), 11, took_s=0, failed=True)
    make(one, 13.5, False, False)

    assert seen == [
        "closed → open: 2 of 4 calls failed",
        "open → half_open: probing 1.0 s after it opened",
        "half_open → open: a probe failed",
        "open → half_open: probing 3.5 s after it opened",
        "half_open → closed: 2 probes succeeded, 3.5 s after it opened",
    ]


def test_slow_calls_and_probes_are_reported_as_slow():
    one, seen = changes()
    make(one, 10, False, False, False, False, took_s=0.05)
    make(one, 11, False, took_s=0.05)

    assert seen[0] == "closed → open: 4 of 4 calls took 0.05 s or longer"
    assert seen[-1] == "half_open → open: a probe took 0.05 s or longer"


def test_silence_is_reported_with_its_length():
    one, seen = changes(BreakerPolicy(silent_s=0.1))
    make(one, 10, *[False] * 1000)
    make(one, 11, *[True] * 4)
    make(one, 11.25, True)

    assert seen == ["closed → open: 5 calls in a row failed within 0.25 s"]


class Machine(RuleBasedStateMachine):
    """The breaker against a model that keeps every call of the present state in a list."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = breaker()
        self.now = 100.0
        self.state = BreakerState.CLOSED
        self.epoch = 0
        self.calls: list[tuple[int, bool, bool]] = []
        self.until = 0.0
        self.closed_at = -math.inf
        self.openings = 0
        self.probing = 0
        self.proven = 0

    def enter(self, state: BreakerState) -> None:
        self.state = state
        self.epoch += 1
        self.calls, self.probing, self.proven = [], 0, 0

    def open(self) -> None:
        if self.state is BreakerState.CLOSED and self.now - self.closed_at >= POLICY.window_s:
            self.openings = 0
        self.until = self.now + min(POLICY.longest_open_s, POLICY.open_s * 2**self.openings)
        self.openings += 1
        self.enter(BreakerState.OPEN)

    def recent(self) -> list[tuple[int, bool, bool]]:
        return [call for call in self.calls if call[0] > int(self.now) - POLICY.window_s]

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.0, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=permits)
    def ask(self) -> tuple[int | None, int]:
        permit = self.breaker.admit(self.now)
        if self.state is BreakerState.OPEN and self.now >= self.until:
            self.enter(BreakerState.HALF_OPEN)
        expected = self.state is BreakerState.CLOSED
        if self.state is BreakerState.HALF_OPEN and self.probing < POLICY.probes:
            self.probing += 1
            expected = True
        assert (permit is not None) == expected
        return permit, self.epoch

    @rule(permit=permits, failed=st.booleans(), slow=st.booleans())
    def answer(self, permit, failed: bool, slow: bool) -> None:
        if permit[0] is None:
            return
        number, epoch = permit
        # A permit is settled once; settling it again belongs to an earlier state.
        if epoch == self.epoch and self.state is BreakerState.HALF_OPEN and self.probing == 0:
            return
        self.breaker.settle(number, self.now, took_s=0.06 if slow else 0.01, failed=failed)
        if epoch != self.epoch:
            return
        if self.state is BreakerState.HALF_OPEN:
            self.probing -= 1
            if failed or slow:
                self.open()
                return
            self.proven += 1
            if self.proven == POLICY.probes:
                self.closed_at = self.now
                self.enter(BreakerState.CLOSED)
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
    def model_agrees(self) -> None:
        state = self.state
        if state is BreakerState.OPEN and self.now >= self.until:
            state = BreakerState.HALF_OPEN
        assert self.breaker.state(self.now) is state
        assert self.breaker.is_failing == (
            self.state is BreakerState.CLOSED and bool(self.calls) and self.calls[-1][1]
        )
        recent = self.recent()
        assert self.breaker.counts(self.now) == (
            len(recent),
            sum(call[1] for call in recent),
            sum(call[2] for call in recent),
        )


TestMachine = Machine.TestCase
