"""
Every metric that Hopgate reports, declared once: name, HELP text, labels, and how processes add up.

To add a metric, declare it here and report it in `app.telemetry.sources`. HELP texts are shown
one by one, in alphabetical order of the names, so each must be understood alone.

Label values are few and known in advance: never a slug, an address or anything else that a client
chooses.
"""

from __future__ import annotations

from typing import Literal, Self

import msgspec

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class _Declared(msgspec.Struct, frozen=True):
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def of(self, *values: str) -> tuple[Self, tuple[str, ...]]:
        """Return the series with these label *values*; ValueError if their number is wrong."""
        if len(values) != len(self.labels):
            message = f"{self.name} has the labels {self.labels}, not {len(values)} values"
            raise ValueError(message)
        return self, values


class Counter(_Declared, frozen=True, tag=True):
    """A total since the start. Processes are summed, ended ones included."""


class Gauge(_Declared, frozen=True, tag=True):
    """A present value. Running processes are summed, or the largest counts."""

    across: Literal["sum", "max"] = "sum"


class Histogram(_Declared, frozen=True, tag=True):
    """Durations by `BUCKETS_S`, in seconds. Processes are summed, ended ones included."""


Family = Counter | Gauge | Histogram
# A family with one value for each of its labels.
Series = tuple[Family, tuple[str, ...]]

PROCESSES = Gauge("hopgate_processes", "Running processes of this gateway or worker.")

# --- redirects ---------------------------------------------------------------------------

REDIRECTS = Counter(
    "hopgate_redirects",
    "Redirect requests within their client's rate limit, by the source of the answer"
    " (memory: the L1 cache; look_up: everything else) and by status.",
    ("source", "status"),
)
STALE_REDIRECTS = Counter(
    "hopgate_stale_redirects",
    "Redirects served from a stale L1 entry because the look-up failed or was shed;"
    " included in hopgate_redirects_total.",
)
LOOK_UPS = Counter(
    "hopgate_look_ups",
    "Slugs looked up after an L1 miss, by the source of the answer: cache, replica, store, or failed.",
    ("source",),
)
L1_ENTRIES = Gauge("hopgate_first_cache_entries", "Entries in the L1 cache, stale ones included.")
LIMITED = Counter("hopgate_limited", "Requests refused by a rate limit, by policy.", ("policy",))

# --- admission control -------------------------------------------------------------------

SHED = Counter("hopgate_shed", "Requests shed by admission control, by kind of work.", ("kind",))
ADMISSION_LIMIT = Gauge("hopgate_admission_limit", "Concurrent work that admission control allows.")
ADMISSION_IN_FLIGHT = Gauge("hopgate_admission_in_flight", "Concurrent work under admission control.")
LOOP_LAG = Gauge(
    "hopgate_event_loop_lag_seconds", "Lag of the event loop; the largest of all processes.", across="max"
)

# --- dependencies ------------------------------------------------------------------------

DEPENDENCY_SECONDS = Histogram(
    "hopgate_dependency_seconds", "Duration of calls to a dependency that answered.", ("dependency",)
)
DEPENDENCY_FAILURES = Counter(
    "hopgate_dependency_failures", "Calls to a dependency that failed or timed out.", ("dependency",)
)
STORE_WRITE_FAILURES = Counter(
    "hopgate_store_write_failures", "Writes that the store refused: a full disk, or a read-only store."
)
BREAKER_CLOSED = Gauge(
    "hopgate_breaker_closed", "Processes in which this circuit breaker is closed.", ("guard",)
)
BREAKER_OPENED = Counter("hopgate_breaker_opened", "Times this circuit breaker has opened.", ("guard",))
BREAKER_REFUSED = Counter("hopgate_breaker_refused", "Calls refused by this circuit breaker.", ("guard",))
BULKHEAD_REFUSED = Counter(
    "hopgate_bulkhead_refused", "Calls refused because their bulkhead was full.", ("guard",)
)
RETRIED_READS = Counter(
    "hopgate_retried_reads", "Reads repeated on another connection after theirs was lost.", ("guard",)
)

# --- clicks and changes ------------------------------------------------------------------

CLICKS_DROPPED = Counter(
    "hopgate_clicks_dropped", "Clicks lost because neither the broker nor the local disk accepted them."
)
CACHE_CHECKED = Counter(
    "hopgate_cache_checked",
    "Changed links compared with the shared cache, by the time since the change.",
    ("window",),
)
CACHE_INCONSISTENT = Counter(
    "hopgate_cache_inconsistent",
    "Changed links whose cached copy was wrong, by the time since the change.",
    ("window",),
)
OUTBOX_ROWS = Gauge(
    "hopgate_outbox_rows", "Changes in the outbox that the broker has not confirmed.", across="max"
)
OUTBOX_STALLED = Gauge(
    "hopgate_outbox_stalled_seconds",
    "For how long changes have waited in the outbox and none was confirmed.",
    across="max",
)
OUTBOX_OLDEST = Gauge(
    "hopgate_outbox_oldest_seconds",
    "Age of the oldest change in the outbox that the broker has not confirmed.",
    across="max",
)
