"""
Metrics as plain numbers, and how the numbers of several processes add up.

Counting stays off the hot path of redirects: components keep plain integers, which are read when
metrics are scraped.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence

from app.telemetry.buckets import BUCKETS_S
from app.telemetry.families import Family, Gauge, Series

# One number for a counter or gauge. For a histogram the count of each bucket, the last one without
# an upper bound, then the sum of all durations in seconds.
Samples = dict[Series, list[float]]


def merge(processes: Iterable[Samples]) -> Samples:
    """Return what all *processes* report together."""
    merged: Samples = {}
    for samples in processes:
        for series, values in samples.items():
            held = merged.get(series)
            if held is None:
                merged[series] = list(values)
            else:
                add = max if _takes_largest(series[0]) else sum
                merged[series] = [add(pair) for pair in zip(held, values, strict=True)]
    return merged


def lasting(samples: Samples) -> Samples:
    """Return what remains of *samples* after their process has ended: everything except gauges."""
    return {series: values for series, values in samples.items() if not isinstance(series[0], Gauge)}


def _takes_largest(family: Family) -> bool:
    return isinstance(family, Gauge) and family.across == "max"


class Rising:
    """
    A source of counters that are differences of counts, read while other threads count on.

    One count may be read before and the other after the same request. The difference is then too large once,
    and a counter that falls by one means to Prometheus that its process began anew.
    """

    def __init__(self, source: Callable[[], Samples]) -> None:
        self._source = source
        self._latest: Samples = {}

    def __call__(self) -> Samples:
        """Return the samples of the source, none of them lower than before."""
        for series, values in self._source().items():
            before = self._latest.get(series, values)
            self._latest[series] = list(map(max, values, before))
        return {series: list(values) for series, values in self._latest.items()}


class Durations:
    """
    Counts durations into the buckets of a histogram.

    Args:
        bounds: of the histogram's family, in seconds.
    """

    def __init__(self, bounds: Sequence[float] = BUCKETS_S) -> None:
        self._bounds = bounds
        self.values = [0.0] * (len(bounds) + 2)

    def observe(self, seconds: float, times: int = 1) -> None:
        """Add a duration, *times* times."""
        self.values[bisect.bisect_left(self._bounds, seconds)] += times
        self.values[-1] += seconds * times
