"""How long the calls of a port take, seen from outside it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from app.domain.errors import Unavailable
from app.telemetry.samples import Histogram, Samples

Port = TypeVar("Port")

# These wait on purpose, or are not on anybody's way.
_UNTIMED = frozenset({"listen", "consume", "aclose", "ping"})


class Timings:
    """Durations and failures of one dependency."""

    def __init__(self, dependency: str) -> None:
        self._dependency = dependency
        self.seconds = Histogram()
        self.failures = 0

    def samples(self) -> Samples:
        """Return what has been counted."""
        return {
            ("hopgate_dependency_seconds", (self._dependency,)): list(self.seconds.values),
            ("hopgate_dependency_failures", (self._dependency,)): [self.failures],
        }


def timed(port: Port, timings: Timings, *, clock: Callable[[], float] = time.perf_counter) -> Port:
    """Return *port*, with every call that asks the dependency timed."""
    return cast("Port", _Timed(port, timings, clock))


class _Timed:
    def __init__(self, port: object, timings: Timings, clock: Callable[[], float]) -> None:
        self._port = port
        self._timings = timings
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name in _UNTIMED or not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            began = self._clock()
            try:
                result = await method(*args, **kwargs)
            except Unavailable:
                # How long it took says more about deadlines and breakers than about anybody.
                self._timings.failures += 1
                raise
            self._timings.seconds.observe(self._clock() - began)
            return result

        # The next call does not come here again.
        setattr(self, name, call)
        return call
