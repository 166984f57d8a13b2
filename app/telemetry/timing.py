"""Durations of the calls to a dependency, measured outside its adapter and guards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from app.domain.errors import Refused, Unavailable
from app.ports.wrapped import Method, methods_of, unchanged, wrapped
from app.telemetry.families import DEPENDENCY_FAILURES, DEPENDENCY_SECONDS, STORE_WRITE_FAILURES
from app.telemetry.samples import Durations, Samples

Port = TypeVar("Port")

# These block on purpose or serve no request. Every other method is timed.
_UNTIMED = frozenset({"listen", "consume", "aclose", "ping", "queue_depths", "try_write"})


class Timings:
    """Durations and failures of one dependency."""

    def __init__(self, dependency: str) -> None:
        self._dependency = dependency
        self.seconds = Durations()
        self.failures = 0
        self.refused = 0

    def samples(self) -> Samples:
        """Return the counts so far."""
        samples: Samples = {
            DEPENDENCY_SECONDS.of(self._dependency): list(self.seconds.values),
            DEPENDENCY_FAILURES.of(self._dependency): [self.failures],
        }
        if self._dependency == "store":
            samples[STORE_WRITE_FAILURES.of()] = [self.refused]
        return samples


def timed(
    port: type, adapter: Port, timings: Timings, *, clock: Callable[[], float] = time.perf_counter
) -> Port:
    """
    Return *adapter* of *port* with its calls counted in *timings*.

    Args:
        clock: seconds, from any starting point.
    """

    def timed_method(method: Method) -> Method:
        async def call(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            try:
                result = await method(*args, **kwargs)
            except Unavailable as error:
                # The time a failure takes tells of deadlines and breakers, not of the dependency.
                timings.failures += 1
                timings.refused += isinstance(error, Refused)
                raise
            timings.seconds.observe(clock() - started)
            return result

        return call

    methods = methods_of(port).items()
    table = {method: unchanged if name in _UNTIMED else timed_method for name, method in methods}
    return wrapped(port, adapter, table)
