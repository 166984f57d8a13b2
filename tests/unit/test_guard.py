from __future__ import annotations

import asyncio
import itertools
import logging
import time

import pytest

from app.concurrency.guard import DependencyGuard, GuardLimits
from app.concurrency.time_limit import left_s, within
from app.domain.errors import NotStarted, Unavailable
from app.resilience.breaker import BreakerPolicy, BreakerState
from app.resilience.retry import RetryBudget
from app.telemetry.families import BREAKER_STATE, BREAKER_TRANSITIONS
from app.telemetry.sources import guard_samples

LIMITS = GuardLimits(max_running=2, max_waiting=1, wait_s=0.01, call_s=10)
POLICY = BreakerPolicy(min_calls=2)


class Dependency:
    """Gives the outcomes in turn, and counts its calls."""

    def __init__(self, *outcomes: object) -> None:
        self.asked = 0
        self._outcomes = itertools.chain(outcomes, itertools.repeat("well"))

    async def __call__(self) -> object:
        self.asked += 1
        outcome = next(self._outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def down() -> Unavailable:
    return Unavailable("it", "refused")


def lost() -> Unavailable:
    return Unavailable("it", "went away", was_lost=True)


@pytest.fixture
def guard(monotonic):
    return DependencyGuard(
        "db.get", LIMITS, POLICY, budget=RetryBudget(), monotonic=monotonic, random=lambda: 0.0
    )


async def test_open_breaker_refuses_without_calling(guard):
    dependency = Dependency(down(), down())
    for _ in range(2):
        with pytest.raises(Unavailable, match="refused"):
            await guard.call(dependency)

    with pytest.raises(Unavailable, match=r"circuit breaker db\.get is open"):
        await guard.call(dependency)

    assert dependency.asked == 2
    assert guard.snapshot().state is BreakerState.OPEN
    assert guard.snapshot().refused_total == 1


async def test_breaker_closes_by_itself(guard, monotonic):
    dependency = Dependency(down(), down())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await guard.call(dependency)

    monotonic.now += 1
    assert [await guard.call(dependency) for _ in range(3)] == ["well"] * 3

    assert guard.snapshot().state is BreakerState.CLOSED


async def test_transitions_are_reported_by_state(guard, monotonic):
    dependency = Dependency(down(), down(), down())

    def reported() -> dict[str, tuple[float, float]]:
        class Guards:
            def snapshot(self):
                return {guard.name: guard.snapshot()}

        samples = guard_samples(Guards())
        return {
            state: (
                samples[BREAKER_STATE.of("db.get", state)][0],
                samples[BREAKER_TRANSITIONS.of("db.get", state)][0],
            )
            for state in ("closed", "open", "half_open")
        }

    assert reported() == {"closed": (1, 0), "open": (0, 0), "half_open": (0, 0)}
    for _ in range(2):
        with pytest.raises(Unavailable):
            await guard.call(dependency)
    assert reported() == {"closed": (0, 0), "open": (1, 1), "half_open": (0, 0)}
    monotonic.now += 1
    with pytest.raises(Unavailable):  # a probe, which fails
        await guard.call(dependency)
    assert reported() == {"closed": (0, 0), "open": (1, 2), "half_open": (0, 1)}
    monotonic.now += 2
    for _ in range(POLICY.probes):
        await guard.call(dependency)
    assert reported() == {"closed": (1, 1), "open": (0, 2), "half_open": (0, 2)}


async def test_breaker_logs_its_name_state_and_counts(guard, monotonic, caplog):
    caplog.set_level(logging.WARNING)
    dependency = Dependency(down(), down())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await guard.call(dependency)
    monotonic.now += 1.5
    for _ in range(3):
        await guard.call(dependency)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "circuit breaker db.get opened: 2 of 2 calls failed"),
        ("WARNING", "circuit breaker db.get closed: 3 probes succeeded, 1.5 s after it opened"),
    ]


async def test_half_open_and_reopening_are_logged_for_debugging(guard, monotonic, caplog):
    """A long outage is one line: a probe every two seconds would drown it."""
    caplog.set_level(logging.DEBUG)
    dependency = Dependency(down(), down(), down())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await guard.call(dependency)
    monotonic.now += 1
    with pytest.raises(Unavailable):
        await guard.call(dependency)

    lines = [r.getMessage() for r in caplog.records if r.name == "app.concurrency.guard"]
    assert lines[1:] == [
        "circuit breaker db.get half-open: probing 1.0 s after it opened",
        "circuit breaker db.get opened: a probe failed",
    ]


async def test_other_exceptions_are_no_failures(guard):
    for _ in range(5):
        with pytest.raises(ValueError, match="ours"):
            await guard.call(Dependency(ValueError("ours")))

    assert guard.snapshot().calls == 0


async def test_cancelled_call_is_not_counted_and_makes_room(guard):
    for _ in range(5):
        call = asyncio.create_task(guard.call(asyncio.Event().wait))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    snapshot = guard.snapshot()
    assert (snapshot.calls, snapshot.running, snapshot.state) == (0, 0, BreakerState.CLOSED)


async def test_missing_answer_is_a_failure(monotonic):
    guard = DependencyGuard(
        "db.get",
        GuardLimits(max_running=1, max_waiting=0, wait_s=0, call_s=0.01),
        POLICY,
        monotonic=monotonic,
    )
    for _ in range(2):
        with pytest.raises(Unavailable, match="no answer within"):
            await guard.call(asyncio.Event().wait)

    assert guard.snapshot().state is BreakerState.OPEN


async def test_call_ends_with_the_deadline_of_its_request(guard):
    """A request with too little time left does not count against the dependency."""
    # Its own timeout comes a second later: only the guard ends these calls.
    async with within(1.05, monotonic=lambda: time.monotonic() - 1):
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"no answer|deadline"):
                await DependencyGuard("db.get", LIMITS, POLICY).call(asyncio.Event().wait)

    assert left_s(0.0) > 1e9


async def test_nested_deadlines_keep_the_shorter():
    now = lambda: 100.0  # noqa: E731
    async with within(2, monotonic=now):
        async with within(50, monotonic=now):
            assert left_s(100.0) == pytest.approx(2, abs=0.01)
        async with within(1, monotonic=now):
            assert left_s(100.0) == pytest.approx(1, abs=0.01)
        assert left_s(100.0) == pytest.approx(2, abs=0.01)


async def test_full_bulkhead_refuses(guard):
    release = asyncio.Event()
    calls = [asyncio.create_task(guard.call(release.wait)) for _ in range(2)]
    await asyncio.sleep(0)

    results = await asyncio.gather(*(guard.call(Dependency()) for _ in range(3)), return_exceptions=True)
    release.set()
    await asyncio.gather(*calls)

    assert [type(result) for result in results] == [NotStarted] * 3
    assert guard.snapshot().crowded_total == 3
    assert guard.snapshot().failures == 0


async def test_read_with_lost_connection_is_retried(guard):
    assert await guard.read(Dependency(lost())) == "well"
    assert guard.snapshot().retried_total == 1


async def test_read_is_retried_once_at_most(guard):
    dependency = Dependency(lost(), lost())
    with pytest.raises(Unavailable):
        await guard.read(dependency)

    assert dependency.asked == 2


async def test_writes_and_refused_reads_are_not_retried(guard):
    for call, dependency in ((guard.call, Dependency(lost())), (guard.read, Dependency(down()))):
        with pytest.raises(Unavailable):
            await call(dependency)

        assert dependency.asked == 1


async def test_retries_end_with_the_budget(monotonic):
    guard = DependencyGuard(
        "db.get",
        LIMITS,
        BreakerPolicy(min_calls=10**9),
        budget=RetryBudget(ratio=0.1, min_per_s=0),
        monotonic=monotonic,
        random=lambda: 0.0,
    )
    dependency = Dependency(*(lost() for _ in range(1000)))
    for _ in range(100):
        with pytest.raises(Unavailable):
            await guard.read(dependency)

    assert dependency.asked == 110


async def opened(guard: DependencyGuard, dependency: Dependency) -> None:
    """Fail two calls: one with a waiting caller, and a background probe."""
    for reason in ("refused", "waiting for a probe"):
        with pytest.raises(Unavailable, match=reason):
            await guard.call(dependency)
    for _ in range(3):
        await asyncio.sleep(0)
    assert guard.snapshot().state is BreakerState.OPEN


async def test_background_probes_close_the_breaker(monotonic):
    guard = DependencyGuard(
        "db.get", LIMITS, POLICY, probes_aside=True, monotonic=monotonic, random=lambda: 0.5
    )
    dependency = Dependency(down(), down())
    await opened(guard, dependency)
    monotonic.now += POLICY.open_s
    answer = asyncio.Event()

    async def silent() -> object:
        await answer.wait()
        return await dependency()

    for _ in range(POLICY.probes):
        with pytest.raises(Unavailable, match="waiting for a probe"):
            await guard.call(silent)
    answer.set()
    for _ in range(3):
        await asyncio.sleep(0)

    assert await guard.call(dependency) == "well"
    assert guard.snapshot().state is BreakerState.CLOSED


async def test_single_failure_sends_later_calls_aside(monotonic):
    """Until a call succeeds, and long before the breaker could open."""
    guard = DependencyGuard("db.get", LIMITS, BreakerPolicy(), probes_aside=True, monotonic=monotonic)
    dependency = Dependency(down())
    with pytest.raises(Unavailable, match="refused"):
        await guard.call(dependency)

    with pytest.raises(Unavailable, match="waiting for a probe"):
        await guard.call(dependency)
    await asyncio.sleep(0)

    assert dependency.asked == 2
    assert await guard.call(dependency) == "well"


async def test_background_probes_are_bounded(monotonic):
    guard = DependencyGuard("db.get", LIMITS, BreakerPolicy(probes=3), probes_aside=True, monotonic=monotonic)
    with pytest.raises(Unavailable, match="refused"):
        await guard.call(Dependency(down()))
    silent = Dependency()

    async def ask() -> None:
        await silent()
        await asyncio.Event().wait()

    for _ in range(100):
        with pytest.raises(Unavailable, match="waiting for a probe"):
            await guard.call(ask)
        await asyncio.sleep(0)

    assert silent.asked == 3
    assert guard.snapshot().running == 0


async def test_failed_background_probe_reopens_the_breaker(monotonic):
    guard = DependencyGuard(
        "db.get", LIMITS, POLICY, probes_aside=True, monotonic=monotonic, random=lambda: 0.5
    )
    dependency = Dependency(down(), down(), down())
    await opened(guard, dependency)
    monotonic.now += POLICY.open_s

    with pytest.raises(Unavailable, match="waiting for a probe"):
        await guard.call(dependency)
    for _ in range(3):
        await asyncio.sleep(0)

    assert dependency.asked == 3
    assert guard.snapshot().state is BreakerState.OPEN
