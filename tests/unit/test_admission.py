from __future__ import annotations

import heapq
import itertools
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.resilience.admission import LATE_TICKS, MAX_LIMIT, MIN_LIMIT, TICK_S, USUAL_LIMIT, Admission, Kind

KINDS = st.sampled_from(Kind)
SECONDS = st.sampled_from([0.0, 0.0001, 0.001, 0.02, 0.2, 5.0])


def fill(admission: Admission, kind: Kind) -> int:
    """How many of *kind* get in."""
    return next(count for count in itertools.count() if not admission.enter(kind))


def late(admission: Admission, lag_s: float) -> None:
    for _ in range(LATE_TICKS):
        admission.tick(lag_s)


def test_each_kind_leaves_room_for_those_that_survive_longer():
    admission = Admission()

    assert fill(admission, Kind.LIST) == USUAL_LIMIT * 0.5
    assert fill(admission, Kind.WRITE) == USUAL_LIMIT * 0.25
    assert fill(admission, Kind.LOOK_UP) == USUAL_LIMIT * 0.25
    assert admission.in_flight == USUAL_LIMIT
    assert set(admission.refused.values()) == {1}


def test_a_late_loop_turns_away_listings_then_writes_then_look_ups():
    def admitted(lag_s: float) -> list[bool]:
        admission = Admission()
        late(admission, lag_s)
        return [admission.enter(kind) for kind in Kind]

    assert admitted(0.049) == [True, True, True]
    assert admitted(0.05) == [True, True, False]
    assert admitted(0.1) == [True, False, False]
    assert admitted(0.2) == [False, False, False]


def test_what_is_refused_on_its_way_would_have_been_refused_at_the_door():
    admission = Admission()
    assert not any(admission.refuses(kind) for kind in Kind)
    fill(admission, Kind.WRITE)
    before = admission.refused[Kind.WRITE]

    assert [admission.refuses(kind) for kind in Kind] == [False, True, True]
    assert admission.refused[Kind.WRITE] == before + 1
    assert admission.in_flight == USUAL_LIMIT * 0.75


def test_one_long_pause_turns_nobody_away():
    admission = Admission()
    admission.tick(5.0)

    assert all(admission.enter(kind) for kind in Kind)


def test_a_loop_that_is_on_time_again_admits_at_once():
    admission = Admission()
    late(admission, 1.0)
    admission.tick(0.0)

    assert all(admission.enter(kind) for kind in Kind)


def run(admission: Admission, *, ticks: int, seconds: float, each_tick: int = 10_000) -> None:
    """As many look-ups under way as get in, each of which takes *seconds*."""
    for _ in range(ticks):
        count = min(fill(admission, Kind.LOOK_UP), each_tick)
        while admission.in_flight:
            admission.leave(Kind.LOOK_UP, seconds if count else None)
        admission.tick(0.0)


def test_the_limit_falls_while_latency_is_worse_than_usual_and_rises_when_it_is_usual_again():
    admission = Admission()
    run(admission, ticks=20, seconds=0.002)
    usual = admission.limit
    run(admission, ticks=60, seconds=0.2)
    pressed = admission.limit
    run(admission, ticks=100, seconds=0.002)

    assert usual > USUAL_LIMIT
    assert pressed == MIN_LIMIT
    assert admission.limit > USUAL_LIMIT / 2


def test_latency_that_nobody_notices_is_no_trouble_however_much_worse_than_usual():
    admission = Admission()
    run(admission, ticks=20, seconds=0.0001)
    run(admission, ticks=200, seconds=0.01)

    assert admission.limit > USUAL_LIMIT


def test_a_minute_of_overload_does_not_become_usual():
    admission = Admission()
    run(admission, ticks=100, seconds=0.01)
    run(admission, ticks=int(60 / TICK_S), seconds=0.05)

    assert admission.limit == MIN_LIMIT


def test_a_dependency_that_is_slower_for_good_becomes_usual():
    admission = Admission()
    run(admission, ticks=100, seconds=0.01)
    seconds_an_hour = 3600

    assert any(
        run(admission, ticks=20, seconds=0.05) or admission.limit > USUAL_LIMIT
        for _ in range(seconds_an_hour)
    )


def test_slowness_under_light_load_shrinks_nothing():
    admission = Admission()
    for _ in range(200):
        for _ in range(20):
            assert admission.enter(Kind.LOOK_UP)
        for _ in range(20):
            admission.leave(Kind.LOOK_UP, 0.3)
        admission.tick(0.0)

    assert admission.limit == USUAL_LIMIT


class Model(RuleBasedStateMachine):
    """What is under way is counted exactly; whoever survives longer is never worse off."""

    def __init__(self):
        super().__init__()
        self.admission = Admission()
        self.under_way = Counter()
        self.lags = [0.0] * LATE_TICKS

    @rule(kind=KINDS)
    def enter(self, kind):
        limit, before = self.admission.limit, self.under_way.total()
        admitted = self.admission.enter(kind)
        self.under_way[kind] += admitted
        if admitted:
            assert before < limit
        elif min(self.lags) < 0.05:
            assert before >= limit * 0.5
        if before == 0 and min(self.lags) < 0.05:
            assert admitted

    @rule(kind=KINDS, times=st.integers(1, 300))
    def flood(self, kind, times):
        for _ in range(times):
            self.enter(kind)

    @precondition(lambda self: self.under_way.total())
    @rule(data=st.data(), seconds=st.none() | SECONDS, times=st.integers(1, 300))
    def leave(self, data, seconds, times):
        for _ in range(min(times, self.under_way.total())):
            kind = next(kind for kind in Kind if self.under_way[kind])
            self.admission.leave(kind, seconds)
            self.under_way[kind] -= 1

    @rule(lag_s=SECONDS, times=st.integers(1, 2 * LATE_TICKS))
    def tick(self, lag_s, times):
        for _ in range(times):
            self.admission.tick(lag_s)
            self.lags = [*self.lags[1:], lag_s]

    @invariant()
    def counted(self):
        assert self.admission.in_flight == self.under_way.total()
        assert MIN_LIMIT <= self.admission.limit <= MAX_LIMIT
        assert self.admission.lag_s == min(self.lags)

    @invariant()
    def who_survives_longer_is_admitted_if_who_does_not_is(self):
        verdicts = []
        for kind in Kind:
            verdicts.append(self.admission.enter(kind))
            if verdicts[-1]:
                self.admission.leave(kind, None)
        assert verdicts == sorted(verdicts, reverse=True)


TestModel = Model.TestCase


# --- an open loop against a simulated process --------------------------------------------


class Simulation:
    """
    One processor, first come, first served: each look-up computes, waits for I/O, computes.

    Refusing is work too. `latencies` by when the look-up arrived.
    """

    COMPUTE_S, IO_S, REFUSE_S = 0.00015, 0.001, 0.00002
    CAPACITY = 1 / (2 * COMPUTE_S)

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.latencies: list[tuple[float, float]] = []
        self.refused: list[float] = []
        self._began: dict[float, float] = {}

    def run(self, phases: list[tuple[float, float]]) -> None:
        """Let *phases* of (seconds, look-ups a second) pass."""
        order = itertools.count()
        events: list[tuple[float, int, str, float]] = []
        now = 0.0
        for seconds, rate in phases:
            arrivals = (now + i / rate for i in range(int(seconds * rate)))
            events += [(arrival, next(order), "arrive", 0.0) for arrival in arrivals]
            now += seconds
        events += [(i * TICK_S, next(order), "tick", 0.0) for i in range(int(now / TICK_S))]
        heapq.heapify(events)
        free = 0.0
        while events:
            due, _, what, arrived = heapq.heappop(events)
            start = max(due, free)
            free = start
            if what == "tick":
                self.admission.tick(start - due)
            elif what == "arrive" and not self.admission.enter(Kind.LOOK_UP):
                free += self.REFUSE_S
                self.refused.append(due)
            elif what == "arrive":
                free += self.COMPUTE_S
                heapq.heappush(events, (free + self.IO_S, next(order), "answer", due))
                self._began[due] = start
            else:
                free += self.COMPUTE_S
                self.latencies.append((arrived, free - arrived))
                self.admission.leave(Kind.LOOK_UP, free - self._began.pop(arrived))

    def between(self, start: float, end: float) -> list[float]:
        return sorted(latency for arrived, latency in self.latencies if start <= arrived < end)


def test_an_open_loop_at_three_times_the_capacity_keeps_its_goodput_and_is_over_when_it_is_over():
    simulation = Simulation(Admission())
    half, thrice = Simulation.CAPACITY / 2, Simulation.CAPACITY * 3

    simulation.run([(5, half), (20, thrice), (10, half)])

    calm, pressed = simulation.between(1, 5), simulation.between(7, 25)
    assert len(pressed) / 18 >= 0.75 * Simulation.CAPACITY
    assert pressed[int(0.99 * len(pressed))] < 0.05
    assert calm[-1] < 0.01
    assert not [one for one in simulation.refused if one < 5 or one > 26]
    assert simulation.between(26, 35)[-1] < 0.01


def test_without_admission_the_same_load_answers_nobody_in_time():
    """The simulation shows what it is meant to show."""

    class Open(Admission):
        def enter(self, kind):
            self.in_flight += 1
            return True

    simulation = Simulation(Open())

    simulation.run([(5, Simulation.CAPACITY * 3)])

    assert simulation.between(4, 5)[0] > 5
