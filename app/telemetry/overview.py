"""
The figures of a gateway or worker on one page, from two successive sets of samples.

Rates, percentiles and hit ratios are of the time between the two; everything else is of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import msgspec

from app.telemetry.families import (
    BREAKER_STATE,
    CLICKS_BUFFERED,
    CLICKS_DROPPED,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    LAYERS,
    LIMITED,
    LIMITER_LEASED,
    LOOP_LAG,
    OUTBOX_OLDEST,
    OUTBOX_ROWS,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESSES,
    QUEUE_MESSAGES,
    REDIRECTS,
    SHED,
    Counter,
    Family,
    Gauge,
    Histogram,
)
from app.telemetry.requests import REDIRECT_ROUTE
from app.telemetry.samples import Samples

_API = "/api/"
# Retries and dead letters have queues of their own, named after the work queue.
_DEAD = ".dead"

_Taken = Callable[[tuple[str, ...]], bool]


class Percentiles(msgspec.Struct, frozen=True):
    """Durations in seconds; None if there was no request."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Breaker(msgspec.Struct, frozen=True):
    """A circuit breaker that is open or half_open in so many *processes*."""

    name: str
    state: str
    processes: int


class Queue(msgspec.Struct, frozen=True):
    """Messages of a work queue; None where it is unknown. Those that wait for a retry are not among them."""

    name: str
    ready: int | None
    unacknowledged: int | None
    dead: int | None


class Overview(msgspec.Struct, frozen=True):
    """
    The figures; rates are per second, and of the last *seconds*.

    `hit_ratios`: from 0 to 1 by layer, None for a layer that was not asked. `clicks_lost`: since the start.
    `cpu`: processors in use. Values that the samples do not have are None, or 0 if they are rates.
    """

    seconds: float
    requests_per_s: float
    redirects_per_s: float
    server_errors_per_s: float
    shed_per_s: float
    limited_per_s: Mapping[str, float]
    redirect_latency: Percentiles
    api_latency: Percentiles
    hit_ratios: Mapping[str, float | None]
    breakers: tuple[Breaker, ...]
    queues: tuple[Queue, ...]
    outbox_rows: int | None
    outbox_oldest_s: float | None
    leased_tokens: int | None
    clicks_buffered: int | None
    clicks_lost: int | None
    loop_lag_s: float | None
    memory_bytes: int | None
    cpu: float
    processes: int


def overview(before: Samples, after: Samples, seconds: float) -> Overview:
    """
    Return the figures of *after*, and of the *seconds* since *before*.

    A counter that has fallen began anew, and has grown by its present value.

    Raises:
        ValueError: *seconds* is not above 0.
    """
    if not seconds > 0:
        message = "the two sets of samples must be of different times"
        raise ValueError(message)
    grown = _Growth(before, after)
    last = _Present(after)

    def rate(family: Counter, taken: _Taken = lambda _: True) -> float:
        return sum(cells[0] for labels, cells in grown.of(family) if taken(labels)) / seconds

    limited = {labels[0]: cells[0] / seconds for labels, cells in grown.of(LIMITED)}
    return Overview(
        seconds=seconds,
        requests_per_s=rate(HTTP_REQUESTS),
        redirects_per_s=rate(REDIRECTS, lambda labels: labels[1] == "3xx"),
        server_errors_per_s=rate(HTTP_REQUESTS, lambda labels: labels[2].startswith("5")),
        shed_per_s=rate(SHED),
        limited_per_s=dict(sorted(limited.items())),
        redirect_latency=_percentiles(grown, lambda labels: labels[0] == REDIRECT_ROUTE),
        api_latency=_percentiles(grown, lambda labels: labels[0].startswith(_API)),
        hit_ratios=_hit_ratios(grown),
        breakers=_breakers(last),
        queues=_queues(last),
        outbox_rows=last.count(OUTBOX_ROWS),
        outbox_oldest_s=last.total(OUTBOX_OLDEST),
        leased_tokens=last.count(LIMITER_LEASED),
        clicks_buffered=last.count(CLICKS_BUFFERED),
        clicks_lost=last.count(CLICKS_DROPPED),
        loop_lag_s=last.total(LOOP_LAG),
        memory_bytes=last.count(PROCESS_MEMORY),
        cpu=rate(PROCESS_CPU),
        processes=last.count(PROCESSES) or 0,
    )


def quantile(q: float, bounds: Sequence[float], counts: Sequence[float]) -> float | None:
    """
    Return the *q*-quantile of a histogram, as `histogram_quantile` of Prometheus does: linear in its bucket.

    Args:
        q: above 0, at most 1.
        bounds: the upper bounds of the buckets, in ascending order.
        counts: of each bucket, and of the one without an upper bound. A quantile in that one is the highest
            bound.

    Returns:
        None if the histogram is empty.
    """
    sums = list(accumulate(counts))
    if not sums or sums[-1] <= 0:
        return None
    rank = q * sums[-1]
    lower, below = 0.0, 0.0
    for upper, count, up_to in zip(bounds, counts, sums, strict=False):
        if up_to >= rank and count > 0:
            # Rounding must not lead out of the bucket.
            return min(upper, lower + (upper - lower) * ((rank - below) / count))
        lower, below = upper, up_to
    return bounds[-1]


class _Growth:
    """By how much the counters and histograms of *after* have grown since *before*."""

    def __init__(self, before: Samples, after: Samples) -> None:
        self._before = before
        self._after = after

    def of(self, family: Counter | Histogram) -> Sequence[tuple[tuple[str, ...], Sequence[float]]]:
        """Return the growth of each series of *family*, by its labels."""
        return [
            (series[1], _grown(self._before.get(series), cells))
            for series, cells in self._after.items()
            if series[0] == family
        ]


def _grown(before: Sequence[float] | None, after: Sequence[float]) -> Sequence[float]:
    if before is None or len(before) != len(after):
        return after
    grown = [now - then for then, now in zip(before, after, strict=True)]
    # One bucket that has fallen is enough: its histogram began anew as a whole.
    return after if min(grown) < 0 else grown


class _Present:
    """The present values of the samples."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def of(self, family: Family) -> Sequence[tuple[tuple[str, ...], float]]:
        return [(labels, cells[0]) for (one, labels), cells in self._samples.items() if one == family]

    def total(self, family: Counter | Gauge) -> float | None:
        """Return the sum of all series; None if there is none."""
        values = [value for _, value in self.of(family)]
        return sum(values) if values else None

    def count(self, family: Counter | Gauge) -> int | None:
        total = self.total(family)
        return None if total is None else round(total)


def _percentiles(grown: _Growth, taken: _Taken) -> Percentiles:
    bounds: Sequence[float] = ()
    counts: list[float] = []
    for labels, cells in grown.of(HTTP_SECONDS):
        if taken(labels):
            # All series of a kind of route have the same bounds.
            bounds = HTTP_SECONDS.bounds_of(labels)
            own = cells[:-1]
            counts = [sum(pair) for pair in zip(counts, own, strict=True)] if counts else list(own)
    return Percentiles(*(quantile(q, bounds, counts) for q in (0.5, 0.95, 0.99)))


def _hit_ratios(grown: _Growth) -> dict[str, float | None]:
    hits: dict[str, float] = {}
    asked: dict[str, float] = {}
    for (layer, result), cells in grown.of(LAYERS):
        asked[layer] = asked.get(layer, 0) + cells[0]
        hits[layer] = hits.get(layer, 0) + (cells[0] if result == "hit" else 0)
    return {layer: hits[layer] / asked[layer] if asked[layer] else None for layer in asked}


def _breakers(last: _Present) -> tuple[Breaker, ...]:
    found = [
        Breaker(name, state, round(value))
        for (name, state), value in last.of(BREAKER_STATE)
        if state != "closed" and value > 0
    ]
    return tuple(sorted(found, key=lambda one: (one.name, one.state)))


def _queues(last: _Present) -> tuple[Queue, ...]:
    depths = {labels: round(value) for labels, value in last.of(QUEUE_MESSAGES)}
    names = {name.removesuffix(_DEAD) for name, _ in depths if ".retry." not in name}
    return tuple(
        Queue(
            name,
            ready=depths.get((name, "ready")),
            unacknowledged=depths.get((name, "unacknowledged")),
            dead=depths.get((f"{name}{_DEAD}", "ready")),
        )
        for name in sorted(names)
    )
