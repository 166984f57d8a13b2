"""
Metrics as plain numbers: what is counted, and how the numbers of several processes add up.

Nothing here is touched by a redirect: whoever counts keeps plain integers, which are read when
somebody asks.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# Name and label values → numbers: one for a counter or gauge; for a histogram the count of
# each bucket, the last one without an upper bound, then the sum.
Samples = dict[tuple[str, tuple[str, ...]], list[float]]


@dataclass(frozen=True, slots=True)
class Family:
    """
    One metric.

    `labels` take few values, known in advance: never a slug, an address or anything else that
    a client chooses. `across`: how processes add up.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    across: Literal["sum", "max"] = "sum"


FAMILIES: Mapping[str, Family] = {
    "hopgate_processes": Family("gauge", "Processes of this gateway that run."),
    "hopgate_redirects": Family(
        "counter",
        "Visits within their client's limit, by where the answer came from: memory or look_up.",
        ("source", "status"),
    ),
    "hopgate_look_ups": Family(
        "counter", "Links looked up, by who knew: cache, replica, store, or nobody (failed).", ("source",)
    ),
    "hopgate_stale_redirects": Family(
        "counter", "Redirects from stale entries, as nobody could be asked. Of hopgate_redirects_total."
    ),
    "hopgate_limited": Family("counter", "Requests over a client's limit.", ("policy",)),
    "hopgate_shed": Family("counter", "Requests refused for want of capacity.", ("kind",)),
    "hopgate_admission_limit": Family("gauge", "How much may be under way at once."),
    "hopgate_admission_in_flight": Family("gauge", "How much is under way."),
    "hopgate_event_loop_lag_seconds": Family("gauge", "How late the event loop is.", across="max"),
    "hopgate_first_cache_entries": Family("gauge", "Links in memory, stale ones included."),
    "hopgate_dependency_seconds": Family(
        "histogram", "How long calls of store, cache and bus took that were answered.", ("dependency",)
    ),
    "hopgate_dependency_failures": Family("counter", "Calls that were not.", ("dependency",)),
    "hopgate_breaker_closed": Family(
        "gauge", "Processes in which the breaker of a guard is closed.", ("guard",)
    ),
    "hopgate_breaker_opened": Family("counter", "Times that it has opened.", ("guard",)),
    "hopgate_breaker_refused": Family("counter", "Calls that an open one refused.", ("guard",)),
    "hopgate_bulkhead_refused": Family("counter", "Calls for which there was no room.", ("guard",)),
    "hopgate_retried_reads": Family("counter", "Reads made again on another connection.", ("guard",)),
    "hopgate_clicks_dropped": Family("counter", "Clicks that neither the broker nor the disk took."),
    "hopgate_cache_checked": Family(
        "counter", "Changes whose cached copy was looked at, so long after they were applied.", ("window",)
    ),
    "hopgate_cache_inconsistent": Family("counter", "Of these, where it was wrong.", ("window",)),
    "hopgate_outbox_rows": Family("gauge", "Changes that the caches have not heard of.", across="max"),
    "hopgate_outbox_oldest_seconds": Family("gauge", "Age of the oldest of them.", across="max"),
}


def merge(everyone: Iterable[Samples]) -> Samples:
    """Return what all processes together report."""
    merged: Samples = {}
    for samples in everyone:
        for key, values in samples.items():
            held = merged.get(key)
            if held is None:
                merged[key] = list(values)
            elif FAMILIES[key[0]].across == "max":
                merged[key] = [max(pair) for pair in zip(held, values, strict=True)]
            else:
                merged[key] = [sum(pair) for pair in zip(held, values, strict=True)]
    return merged


def lasting(samples: Samples) -> Samples:
    """Return what a process that has ended leaves to be counted: everything but gauges."""
    return {key: values for key, values in samples.items() if FAMILIES[key[0]].kind != "gauge"}


class Histogram:
    """Counts durations by how long they were."""

    def __init__(self) -> None:
        self.values = [0.0] * (len(BUCKETS_S) + 2)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.values[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.values[-1] += seconds
