"""One guarded way to a dependency: bulkhead, breaker, deadline, and the retry of a lost read."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from app.domain.errors import Unavailable
from app.resilience.breaker import Breaker, BreakerPolicy, State
from app.resilience.bulkhead import Bulkhead
from app.resilience.deadline import left_s
from app.resilience.expiry import Expiry
from app.resilience.retry import RetryBudget, full_jitter_s

log = logging.getLogger(__name__)

_RETRY_BASE_S, _RETRY_CAP_S = 0.02, 0.1
# A call that was given this long and was not answered counts as a failure.
_PROOF_S = 0.5
T = TypeVar("T")


class _OutOfTime(Unavailable):
    """Too little time was left to learn anything about the dependency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many calls may be under way, how many may wait and how long, and how long each may take."""

    max_running: int
    max_waiting: int
    wait_s: float
    call_s: float


@dataclass(frozen=True, slots=True)
class GuardSnapshot:
    """
    How a guard stands: calls, failures and slow calls of the window, and totals since the start.

    `refused_total` counts what an open breaker refused, `crowded_total` what the bulkhead did.
    """

    state: State
    calls: int
    failures: int
    slow: int
    running: int
    waiting: int
    opened_total: int
    refused_total: int
    crowded_total: int
    retried_total: int


class Guard:
    """
    Stands before some calls to *dependency*. Everything it refuses is `Unavailable`, at once.

    Only `Unavailable` and the guard's own deadline count against the dependency: a caller that
    goes away, or a mistake in this program, says nothing about it.

    Args:
        budget: for the retries of `read`; shared by the guards of one dependency.
        probes_aside: nobody waits for a dependency that is only being tried again, nor for one whose
            last call failed: the caller is refused, and what it wanted is done beside it. So an
            outage is felt by those who were waiting when it was noticed, and by nobody after them.
    """

    def __init__(
        self,
        dependency: str,
        limits: Limits,
        policy: BreakerPolicy,
        *,
        budget: RetryBudget | None = None,
        probes_aside: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._dependency = dependency
        self._limits = limits
        self._budget = budget or RetryBudget()
        self._probes_aside = probes_aside
        self._max_probes = policy.probes
        self._probes: set[asyncio.Task[None]] = set()
        self._monotonic = monotonic
        self._random = random
        self._bulkhead = Bulkhead(limits.max_running, limits.max_waiting)
        self._expiry = Expiry(limits.call_s)
        self.breaker = Breaker(policy, random=random)
        self._refused_total = self._crowded_total = self._retried_total = 0

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """
        Return what *work* returns.

        Raises:
            Unavailable: what *work* raised, or no turn, no time, or no hope.
        """
        bulkhead = self._bulkhead
        if not bulkhead.try_enter() and not await bulkhead.enter(self._wait_s()):
            self._crowded_total += 1
            raise Unavailable(self._dependency, "is busy with too many calls")
        try:
            started = self._monotonic()
            left = left_s(started)
            permit = self.breaker.admit(started)
            if permit is None:
                self._refused_total += 1
                raise Unavailable(self._dependency, "is left alone for a moment after too many failures")
            if self._probes_aside and self._is_in_doubt(started):
                self._try_aside(work, permit, started)
                self._refused_total += 1
                raise Unavailable(self._dependency, "is only being tried again")
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
        Return what *work* returns; if its connection was lost, do it once more, within the budget.

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
        """Return how it stands."""
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
        )

    def _is_in_doubt(self, now: float) -> bool:
        return self.breaker.is_failing or self.breaker.state(now) is State.HALF_OPEN

    def _try_aside(self, work: Callable[[], Awaitable[T]], permit: int, started: float) -> None:
        # A closed breaker permits any number, and a silent dependency would keep all of them.
        if len(self._probes) >= self._max_probes:
            self.breaker.withdraw(permit)
            return
        probe = asyncio.create_task(self._probe(work, permit, started))
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _probe(self, work: Callable[[], Awaitable[T]], permit: int, started: float) -> None:
        """Do *work* for the breaker's sake only."""
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
        """Do *work* for a request that has only *left* seconds to go."""
        try:
            async with asyncio.timeout(left) as timeout:
                return await work()
        except TimeoutError:
            if not timeout.expired():
                raise
        # One that came with hardly any time left proves nothing.
        kind = Unavailable if left >= min(_PROOF_S, self._limits.call_s / 2) else _OutOfTime
        raise kind(self._dependency, f"no answer within {max(0.0, left):.2g} s")

    def _settle(self, permit: int, started: float, *, failed: bool) -> None:
        now = self._monotonic()
        if self.breaker.settle(permit, now, took_s=now - started, failed=failed):
            log.warning("%s fails or is slow: it is left alone for a moment", self._dependency)

    def _wait_s(self) -> float:
        return max(0.0, min(self._limits.wait_s, left_s(self._monotonic())))
