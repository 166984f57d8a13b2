from __future__ import annotations

import heapq
import itertools
from collections import Counter
from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.concurrency.loop_lag import watch_loop_lag
from app.domain.errors import Overloaded
from app.resilience.admission import (
    LATE_TICKS,
    MAX_LIMIT,
    MIN_LIMIT,
    TICK_S,
    USUAL_LIMIT,
    AdmissionController,
    WorkKind,
)

KINDS = st.sampled_from(WorkKind)
SECONDS = st.sampled_from([0.0, 0.0001, 0.001, 0.02, 0.2, 5.0])


def controller() -> AdmissionController:
    """Its clock stands still at 0: work that took n seconds entered at -n."""
    return AdmissionController(monotonic=lambda: 0.0)


def enters(admission: AdmissionController, kind: WorkKind) -> bool:
    try:
        admission.enter(kind)
    except Overloaded:
        return False
    return True


def leave(admission: AdmissionController, kind: WorkKind, seconds: float | None) -> None:
    """End work that took *seconds*; None if it failed."""
    admission.leave(kind, -(seconds or 0.0), succeeded=seconds is not None)


def fill(admission: AdmissionController, kind: WorkKind) -> int:
    """Enter work of *kind* until it is refused; return how much entered."""
    return next(count for count in itertools.count() if not enters(admission, kind))


def late(admission: AdmissionController, lag_s: float) -> None:
    for _ in range(LATE_TICKS):
        admission.tick(lag_s)


def test_each_kind_reserves_room_for_earlier_kinds():
    admission = controller()

    assert fill(admission, WorkKind.LIST) == USUAL_LIMIT * 0.5
    assert fill(admission, WorkKind.WRITE) == USUAL_LIMIT * 0.25
    assert fill(admission, WorkKind.LOOK_UP) == USUAL_LIMIT * 0.25
    assert admission.in_flight == USUAL_LIMIT
    assert set(admission.refused.values()) == {1}


def test_late_loop_sheds_kinds_in_order():
    def admitted(lag_s: float) -> list[bool]:
        admission = controller()
        late(admission, lag_s)
        return [enters(admission, kind) for kind in WorkKind]

    assert admitted(0.049) == [True, True, True]
    assert admitted(0.05) == [True, True, False]
    assert admitted(0.1) == [True, False, False]
    assert admitted(0.2) == [False, False, False]


def test_refuses_agrees_with_enter_and_counts():
    admission = controller()
    assert not any(admission.refuses(kind) for kind in WorkKind)
    fill(admission, WorkKind.WRITE)
    before = admission.refused[WorkKind.WRITE]

    assert [admission.refuses(kind) for kind in WorkKind] == [False, True, True]
    assert admission.refused[WorkKind.WRITE] == before + 1
    assert admission.in_flight == USUAL_LIMIT * 0.75


def test_single_long_pause_sheds_nothing():
    admission = controller()
    admission.tick(5.0)

    assert all(enters(admission, kind) for kind in WorkKind)


def test_loop_on_time_again_admits_at_once():
    admission = controller()
    late(admission, 1.0)
    admission.tick(0.0)

    assert all(enters(admission, kind) for kind in WorkKind)


def run(admission: AdmissionController, *, ticks: int, seconds: float, each_tick: int = 10_000) -> None:
    """Each tick, enter as many look-ups as are admitted; each takes *seconds*."""
    for _ in range(ticks):
        count = min(fill(admission, WorkKind.LOOK_UP), each_tick)
        while admission.in_flight:
            leave(admission, WorkKind.LOOK_UP, seconds if count else None)
        admission.tick(0.0)


def test_limit_falls_with_high_latency_and_recovers():
    admission = controller()
    run(admission, ticks=20, seconds=0.002)
    usual = admission.limit
    run(admission, ticks=60, seconds=0.2)
    pressed = admission.limit
    run(admission, ticks=100, seconds=0.002)

    assert usual > USUAL_LIMIT
    assert pressed == MIN_LIMIT
    assert admission.limit > USUAL_LIMIT / 2


def test_unnoticeable_latency_keeps_the_limit():
    admission = controller()
    run(admission, ticks=20, seconds=0.0001)
    run(admission, ticks=200, seconds=0.01)

    assert admission.limit > USUAL_LIMIT


def test_minute_of_overload_does_not_become_usual():
    admission = controller()
    run(admission, ticks=100, seconds=0.01)
    run(admission, ticks=int(60 / TICK_S), seconds=0.05)

    assert admission.limit == MIN_LIMIT


def test_lasting_slowness_becomes_usual():
    admission = controller()
    run(admission, ticks=100, seconds=0.01)
    seconds_an_hour = 3600

    for _ in range(seconds_an_hour):
        run(admission, ticks=20, seconds=0.05)
        if admission.limit > USUAL_LIMIT:
            break
    assert admission.limit > USUAL_LIMIT


def test_slowness_under_light_load_keeps_the_limit():
    admission = controller()
    for _ in range(200):
        for _ in range(20):
            assert enters(admission, WorkKind.LOOK_UP)
        for _ in range(20):
            leave(admission, WorkKind.LOOK_UP, 0.3)
        admission.tick(0.0)

    assert admission.limit == USUAL_LIMIT


async def test_loop_lag_is_the_time_after_the_period():
    times = iter([10.0, 10.25, 20.0, 19.5])
    lags: list[float] = []

    # The clock raises after its last reading, which ends the watch.
    with suppress(RuntimeError):
        await watch_loop_lag(lags.append, period_s=0.0, monotonic=lambda: next(times))

    assert lags == [0.25, 0.0]


class Model(RuleBasedStateMachine):
    """Work in flight is counted exactly; an earlier kind is never worse off than a later one."""

    def __init__(self):
        super().__init__()
        self.admission = controller()
        self.under_way: Counter[WorkKind] = Counter()
        self.lags = [0.0] * LATE_TICKS

    @rule(kind=KINDS)
    def enter(self, kind):
        limit, before = self.admission.limit, self.under_way.total()
        admitted = enters(self.admission, kind)
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
            kind = next(kind for kind in WorkKind if self.under_way[kind])
            leave(self.admission, kind, seconds)
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
    def earlier_kinds_are_admitted_if_later_kinds_are(self):
        verdicts = []
        for kind in WorkKind:
            verdicts.append(enters(self.admission, kind))
            if verdicts[-1]:
                leave(self.admission, kind, None)
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

    def __init__(self, admission: AdmissionController) -> None:
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
            elif what == "arrive" and not enters(self.admission, WorkKind.LOOK_UP):
                free += self.REFUSE_S
                self.refused.append(due)
            elif what == "arrive":
                free += self.COMPUTE_S
                heapq.heappush(events, (free + self.IO_S, next(order), "answer", due))
                self._began[due] = start
            else:
                free += self.COMPUTE_S
                self.latencies.append((arrived, free - arrived))
                leave(self.admission, WorkKind.LOOK_UP, free - self._began.pop(arrived))

    def between(self, start: float, end: float) -> list[float]:
        return sorted(latency for arrived, latency in self.latencies if start <= arrived < end)


def test_triple_load_keeps_goodput_and_recovers():
    simulation = Simulation(controller())
    half, thrice = Simulation.CAPACITY / 2, Simulation.CAPACITY * 3

    simulation.run([(5, half), (20, thrice), (10, half)])

    calm, pressed = simulation.between(1, 5), simulation.between(7, 25)
    assert len(pressed) / 18 >= 0.75 * Simulation.CAPACITY
    assert pressed[int(0.99 * len(pressed))] < 0.05
    assert calm[-1] < 0.01
    assert not [one for one in simulation.refused if one < 5 or one > 26]
    assert simulation.between(26, 35)[-1] < 0.01


def test_same_load_without_admission_control_answers_late():
    """The simulation shows what it is meant to show."""

    class Open(AdmissionController):
        def refuses(self, kind):
            return False

    simulation = Simulation(Open(monotonic=lambda: 0.0))

    simulation.run([(5, Simulation.CAPACITY * 3)])

    assert simulation.between(4, 5)[0] > 5


def test_many_are_admitted_as_one_by_one(monotonic):
    """Each counts: in flight, against the limit, and with its latency."""
    together, singly = (AdmissionController(monotonic=monotonic) for _ in range(2))
    for _ in range(300):
        with suppress(Overloaded):
            singly.enter(WorkKind.LOOK_UP)

    admitted, entered = together.enter_many(WorkKind.LOOK_UP, 300)

    assert admitted == USUAL_LIMIT
    assert together.in_flight == singly.in_flight
    assert together.refused == singly.refused
    assert together.enter_many(WorkKind.LOOK_UP, 5)[0] == 0
    together.leave_many(WorkKind.LOOK_UP, [entered] * 200, succeeded=True)
    assert together.enter_many(WorkKind.LOOK_UP, 300)[0] == 200
