"""Redis Sentinel: the primary is killed under load, and its replica takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.faults.harness import drill
from tests.faults.harness.drill import Figures, Timing
from tests.faults.harness.reconfigured import running_with
from tests.faults.harness.recovery import LOAD, cached_wrong, descriptors, recovery_noted
from tests.faults.harness.stage import Stage
from tests.servers.redis import PrivateRedis
from tests.servers.redis_sentinel import PrivateSentinels

_TIMING = Timing(before_s=4.0, during_s=10.0, after_s=6.0)


_Break = Callable[[PrivateSentinels, PrivateRedis], AbstractContextManager[None]]


def primary_killed(stage: Stage) -> Figures:
    """
    The primary is killed just after its replica was cut off from it, so the replica lacks the last writes.

    At the end of the fault the old primary comes back, with the entries that it had saved.
    """
    return _failed_over(stage, _killed)


def primary_silent(stage: Stage) -> Figures:
    """The primary is stopped (SIGSTOP), replaced, and goes on as if nothing had happened."""
    return _failed_over(stage, _paused)


def _failed_over(stage: Stage, broken: _Break) -> Figures:
    with PrivateSentinels() as site, running_with(stage, HOPGATE_REDIS_URL=site.url):
        fds: list[int] = []
        recovery: list[float] = []

        @contextmanager
        def fault(stage: Stage) -> Iterator[None]:
            fds.extend(descriptors(stage))
            old = site.primary
            with broken(site, old), recovery_noted(stage, recovery):
                yield

        outcomes = drill.run(stage, fault, _TIMING, **LOAD)
        return {
            **outcomes.figures,
            "violations": len(outcomes.violations),
            "recovery_s": min(recovery, default=float("inf")),
            "fds_grown": max(after - before for before, after in zip(fds, descriptors(stage), strict=True)),
            "cached_wrong": cached_wrong(stage, site.primary.values),
        }


@contextmanager
def _killed(site: PrivateSentinels, old: PrivateRedis) -> Iterator[None]:
    replica = next(server for server in site.servers if server is not old)
    replica.command("REPLICAOF", "127.0.0.1", 1)
    old.command("SAVE")
    old.kill()
    yield
    site.await_another(old)
    old.start()


@contextmanager
def _paused(site: PrivateSentinels, old: PrivateRedis) -> Iterator[None]:
    old.pause()
    try:
        yield
        site.await_another(old)
    finally:
        old.resume()
