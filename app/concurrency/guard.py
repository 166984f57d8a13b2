"""A guard of one kind of call to a dependency: bulkhead, circuit breaker, deadline, retry."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from app.concurrency.bulkhead import Bulkhead
from app.concurrency.expiry import Expiry
from app.concurrency.time_limit import left_s
from app.domain.errors import NotStarted, Unavailable
from app.resilience.breaker import Breaker, BreakerChange, BreakerPolicy, BreakerState
from app.resilience.retry import RetryBudget, full_jitter_s

log = logging.getLogger(__name__)

_RETRY_BASE_S, _RETRY_CAP_S = 0.02, 0.1
# A call that got less time than this, because its request was late, does not count as a failure.
_PROOF_S = 0.5
_VERBS = {
    BreakerState.CLOSED: "closed",
    BreakerState.OPEN: "opened",
    BreakerState.HALF_OPEN: "half-open",
}
T = TypeVar("T")


class _OutOfTime(Unavailable):
    """The request had too little time left for the outcome to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """The bulkhead (concurrent calls, waiting calls, how long they wait) and the deadline of a call."""

    max_running: int
    max_waiting: int
    wait_s: float
    call_s: float


@dataclass(frozen=True, slots=True)
class GuardSnapshot:
    """
    The state of a guard: calls, failures and slow calls in the window, and totals since the start.

    `refused_total` counts refusals by the breaker, `crowded_total` refusals by the bulkhead, and `entered`
    the transitions of the breaker to each state.
    """

    state: BreakerState
    calls: int
    failures: int
    slow: int
    running: int
    waiting: int
    opened_total: int
    refused_total: int
    crowded_total: int
    retried_total: int
    entered: Mapping[BreakerState, int]


class DependencyGuard:
    """
    Guards one kind of call to a dependency. Every refusal is an immediate `Unavailable`.

    Only `Unavailable` and the guard's own deadline count as failures of the dependency. A cancelled
    call or an exception of this program says nothing about it.

    Args:
        name: the dependency and the kind of call, as in "postgresql.lookup"; in logs and metrics.
        budget: of the retries in `read`; shared by the guards of one dependency.
        probes_aside: when half-open, or right after a failure, callers fail fast and the call runs
            as a background probe. So only calls that are under way when an outage begins wait for it.
    """

    def __init__(
        self,
        name: str,
        limits: GuardLimits,
        policy: BreakerPolicy,
        *,
        budget: RetryBudget | None = None,
        probes_aside: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.name = name
        self._dependency = name.partition(".")[0]
        self._limits = limits
        self._budget = budget or RetryBudget()
        self._probes_aside = probes_aside
        self._max_probes = policy.probes
        self._probes: set[asyncio.Task[None]] = set()
        self._monotonic = monotonic
        self._random = random
        self._bulkhead = Bulkhead(limits.max_running, limits.max_waiting)
        self._expiry = Expiry(limits.call_s)
        self.breaker = Breaker(policy, random=random, on_change=self._log_change)
        self._refused_total = self._crowded_total = self._retried_total = 0

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """
        Return what *work* returns.

        Raises:
            Unavailable: raised by *work*; or no answer in time; or refused by bulkhead or breaker.
        """
        bulkhead = self._bulkhead
        if not bulkhead.try_enter() and not await bulkhead.enter(self._wait_s()):
            self._crowded_total += 1
            raise NotStarted(self._dependency, f"bulkhead {self.name} is full")
        try:
            started = self._monotonic()
            left = left_s(started)
            permit = self.breaker.admit(started)
            if permit is None:
                self._refused_total += 1
                raise NotStarted(self._dependency, f"circuit breaker {self.name} is open")
            if self._probes_aside and self._is_in_doubt(started):
                self._start_probe(work, permit, started)
                self._refused_total += 1
                raise NotStarted(self._dependency, f"circuit breaker {self.name} is waiting for a probe")
            call = self._expiry.start()
            try:
                result = await (work() if left >= self._limits.call_s else self._hurried(work, left))
            except BaseException as error:
                if self._expiry.stop(call) and isinstance(error, asyncio.CancelledError):
                    error = Unavailable(self._dependency, f"no answer within {self._limits.call_s:g} s")
                if isinstance(error, Unavailable) and not isinstance(error, _OutOfTime):
                    self._settle(permit, started, failed=True)
                else:
                    self.breaker.withdraw(permit)
                raise error  # noqa: TRY201 - not always the one that was caught
            self._expiry.stop(call)
            self._settle(permit, started, failed=False)
            return result
        finally:
            bulkhead.leave()

    async def read(self, work: Callable[[], Awaitable[T]]) -> T:
        """
        Return what *work* returns; if its connection was lost, retry once, within the budget.

        Raises:
            Unavailable: as `call` does.
        """
        self._budget.note_call(self._monotonic())
        try:
            return await self.call(work)
        except Unavailable as error:
            if not (error.was_lost and self._budget.take(self._monotonic())):
                raise
        self._retried_total += 1
        await asyncio.sleep(full_jitter_s(0, base_s=_RETRY_BASE_S, cap_s=_RETRY_CAP_S, random=self._random))
        return await self.call(work)

    def snapshot(self) -> GuardSnapshot:
        """Return the present state."""
        now = self._monotonic()
        return GuardSnapshot(
            self.breaker.state(now),
            *self.breaker.counts(now),
            self._bulkhead.running,
            self._bulkhead.waiting,
            self.breaker.opened_total,
            self._refused_total,
            self._crowded_total,
            self._retried_total,
            dict(self.breaker.entered),
        )

    def _is_in_doubt(self, now: float) -> bool:
        return self.breaker.is_failing or self.breaker.state(now) is BreakerState.HALF_OPEN

    def _start_probe(self, work: Callable[[], Awaitable[T]], permit: int, started: float) -> None:
        # A closed breaker admits any number of calls, and a silent dependency would keep them all.
        if len(self._probes) >= self._max_probes:
            self.breaker.withdraw(permit)
            return
        probe = asyncio.create_task(self._probe(work, permit, started))
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _probe(self, work: Callable[[], Awaitable[T]], permit: int, started: float) -> None:
        """Do *work*; only its outcome is of interest."""
        failed = True
        try:
            async with asyncio.timeout(self._limits.call_s):
                await work()
            failed = False
        except (Unavailable, TimeoutError):
            pass
        except BaseException:
            self.breaker.withdraw(permit)
            raise
        self._settle(permit, started, failed=failed)

    async def _hurried(self, work: Callable[[], Awaitable[T]], left: float) -> T:
        """Do *work* for a request that has only *left* seconds left."""
        try:
            async with asyncio.timeout(left) as timeout:
                return await work()
        except TimeoutError:
            if not timeout.expired():
                raise
        # With hardly any time left, a missing answer is not a failure of the dependency.
        kind = Unavailable if left >= min(_PROOF_S, self._limits.call_s / 2) else _OutOfTime
        raise kind(self._dependency, f"no answer within {max(0.0, left):.2g} s")

    def _settle(self, permit: int, started: float, *, failed: bool) -> None:
        now = self._monotonic()
        self.breaker.settle(permit, now, took_s=now - started, failed=failed)

    def _log_change(self, change: BreakerChange) -> None:
        is_closed = BreakerState.CLOSED in {change.before, change.after}
        # An outage is two lines, opened and closed: the probes between them are for debugging.
        level = logging.WARNING if is_closed else logging.DEBUG
        log.log(level, "circuit breaker %s %s: %s", self.name, _VERBS[change.after], change.reason)

    def _wait_s(self) -> float:
        return max(0.0, min(self._limits.wait_s, left_s(self._monotonic())))
