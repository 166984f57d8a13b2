"""
Durations and outcomes of HTTP requests, by route, method and status.

A redirect from the L1 cache takes some fifteen microseconds, the server included, so it is counted by one
addition to a plain list (`RequestMetrics.steps`). Every other request is an `Exchange`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from types import TracebackType

from app.domain.link import REDIRECT_CODES
from app.telemetry.families import HTTP_ACTIVE, HTTP_REQUESTS, HTTP_SECONDS
from app.telemetry.samples import Samples

REDIRECT_ROUTE = "/{slug}"
# Redirects from the L1 cache are counted by whole microseconds up to 2 ms, and moved to the buckets when they
# are reported: bucket and sum would take as long as the rest of the measurement. All bounds in this
# range are whole microseconds, so buckets are exact; the sum is right to half a microsecond each.
STEPS_PER_S = 1_000_000
_STEPS = 2000
# The path has no route, or the request was refused before one was looked for.
UNKNOWN_ROUTE = "unknown"
_REDIRECTS = ((REDIRECT_ROUTE, "GET"), (REDIRECT_ROUTE, "HEAD"))
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Methods that clients make up are one value.
OTHER_METHOD = "_OTHER"
# The request was cancelled before its answer was sent: the process stops.
CANCELLED = 499
# A handler failed beyond the last resort: the server answers by itself.
_FAILED = 500


class Statuses(dict[int, list[float]]):
    """
    The requests of one route and method: the counts of a histogram for each status.

    Args:
        bounds: of the histogram, in seconds.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self.bounds = bounds

    def __missing__(self, status: int) -> list[float]:
        cells = self[status] = [0] * (len(self.bounds) + 2)
        return cells


class Exchange:
    """
    One request and its answer: a context manager, so that each is counted once, whatever happens.

    Set `route` once it is known, and `status` before the answer is sent.
    """

    __slots__ = ("_metrics", "_started", "method", "route", "status")

    def __init__(self, metrics: RequestMetrics, method: str, started: float, route: str) -> None:
        self._metrics = metrics
        self._started = started
        self.method = method
        self.route = route
        self.status = 0

    def __enter__(self) -> Exchange:
        self._metrics.active += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._metrics.active -= 1
        status = self.status
        if not status:
            status = CANCELLED if kind is not None and issubclass(kind, asyncio.CancelledError) else _FAILED
        self._metrics.observe(self.route, self.method, status, monotonic() - self._started)


class RequestMetrics:
    """
    The HTTP requests of one process, from their head until their answer is handed to the server.

    `active` counts the present exchanges. A redirect from the L1 cache is none: it awaits nothing, so
    no scrape meets one.

    `steps`: add 1 to `steps[status][n]` for a redirect from the L1 cache that took n microseconds.
    """

    def __init__(self) -> None:
        self.active = 0
        self.steps = {status: [0] * _STEPS for status in REDIRECT_CODES}
        self._routes: dict[str, dict[str, Statuses]] = {}
        self._taken: set[tuple[str, str]] = set()
        self.declare(UNKNOWN_ROUTE, dict.fromkeys((*METHODS, OTHER_METHOD), (400, 404)))
        self.declare(UNKNOWN_ROUTE, {"OPTIONS": (204,)})

    def declare(self, route: str, methods: Mapping[str, Iterable[int]]) -> None:
        """
        Count requests of *route* with these *methods* and statuses from the start, as zeros; others by 405.

        Durations are reported from the first request on, except for redirects: with zeros of every route and
        status a scrape would take four times as long.
        """
        for method, statuses in methods.items():
            self._taken.add((route, method))
            for status in statuses:
                self.of(route, method)[status]
        for method in (*METHODS, OTHER_METHOD):
            if (route, method) not in self._taken:
                self.of(route, method)[204 if method == "OPTIONS" else 405]

    def of(self, route: str, method: str) -> Statuses:
        """Return the counts of *route* and *method*, to add to."""
        methods = self._routes.setdefault(route, {})
        found = methods.get(method)
        if found is None:
            name = method if method in METHODS else OTHER_METHOD
            found = methods.get(name)
            if found is None:
                found = methods[name] = Statuses(HTTP_SECONDS.bounds_of((route,)))
        return found

    def exchange(self, method: str, started: float, route: str = UNKNOWN_ROUTE) -> Exchange:
        """Return the exchange of a request that arrived at *started*, in seconds of `time.monotonic`."""
        return Exchange(self, method, started, route)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        statuses = self.of(route, method)
        cells = statuses[status]
        cells[bisect_left(statuses.bounds, seconds)] += 1
        cells[-1] += seconds

    def add(self, route: str, method: str, status: int, counts: Sequence[int], seconds: float) -> None:
        """Count requests that were counted elsewhere, by the buckets of the route; *seconds* in all."""
        cells = self.of(route, method)[status]
        for bucket, count in enumerate(counts):
            cells[bucket] += count
        cells[-1] += seconds

    def samples(self) -> Samples:
        """Report all requests so far."""
        self._collect()
        samples: Samples = {HTTP_ACTIVE.of(): [self.active]}
        for route, methods in self._routes.items():
            for method, statuses in methods.items():
                for status, cells in statuses.items():
                    count = sum(cells[:-1])
                    samples[HTTP_REQUESTS.of(route, method, str(status))] = [count]
                    if not count and (route, method) not in _REDIRECTS:
                        continue
                    seconds = samples.setdefault(
                        HTTP_SECONDS.of(route, method, f"{status // 100}xx"), [0] * len(cells)
                    )
                    seconds[:] = map(sum, zip(seconds, cells, strict=True))
        return samples

    def _collect(self) -> None:
        statuses = self.of(REDIRECT_ROUTE, "GET")
        for status, steps in self.steps.items():
            if not any(steps):
                continue
            cells = statuses[status]
            for step, count in enumerate(steps):
                if count:
                    middle_s = (step + 0.5) / STEPS_PER_S
                    cells[bisect_left(statuses.bounds, middle_s)] += count
                    cells[-1] += middle_s * count
                    steps[step] = 0
