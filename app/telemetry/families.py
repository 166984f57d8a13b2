"""
Every metric that Hopgate reports, declared once: name, HELP text, labels, and how processes add up.

To add a metric, declare it here and report it in `app.telemetry.sources`. HELP texts are shown
one by one, in alphabetical order of the names, so each must be understood alone.

Label values are few and known in advance: never a slug, an address or anything else that a client
chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal, Self

import msgspec

from app.telemetry.buckets import AGES_S, BUCKETS_S, COARSE_S, FINE_S


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
    """
    Durations by *bounds*, in seconds. Processes are summed, ended ones included.

    Series whose first label is *fine_for* have the bounds *fine* instead.
    """

    bounds: tuple[float, ...] = BUCKETS_S
    fine: tuple[float, ...] = ()
    fine_for: str = ""

    # That of a struct goes through all bounds, at each look-up of a series.
    def __hash__(self) -> int:
        """Hash the name: it is unique."""
        return hash(self.name)

    def bounds_of(self, labels: tuple[str, ...]) -> tuple[float, ...]:
        """Return the bounds of the series with these label values."""
        return self.fine if self.fine_for and labels[0] == self.fine_for else self.bounds


Family = Counter | Gauge | Histogram
# A family with one value for each of its labels.
Series = tuple[Family, tuple[str, ...]]


@cache
def declared() -> Mapping[str, Family]:
    """Return every metric of this module by name."""
    return {one.name: one for one in globals().values() if isinstance(one, Counter | Gauge | Histogram)}


BUILD = Gauge(
    "hopgate_build_info",
    "Always 1; the labels tell the versions of Hopgate and Python.",
    ("version", "python"),
    across="max",
)
PROCESS_CPU = Counter("process_cpu_seconds", "Processor time of user and system.")
PROCESS_MEMORY = Gauge(
    "process_resident_memory_bytes",
    "Resident memory. What processes share, such as code, is counted in each.",
)
PROCESS_FDS = Gauge("process_open_fds", "File descriptors that are open.")
PROCESS_MAX_FDS = Gauge("process_max_fds", "The most file descriptors that a process may open.", across="max")
PROCESSES = Gauge("hopgate_processes", "Running processes of this gateway or worker.")

# --- HTTP --------------------------------------------------------------------------------

HTTP_SECONDS = Histogram(
    "http_server_request_duration_seconds",
    "Time from the head of an HTTP request until its answer is handed to the server,"
    " by route, method and class of status.",
    ("route", "method", "status"),
    bounds=COARSE_S,
    fine=FINE_S,
    fine_for="/{slug}",
)
HTTP_REQUESTS = Counter(
    "http_server_requests",
    "Answered HTTP requests, by route, method and status.",
    ("route", "method", "status"),
)
HTTP_ACTIVE = Gauge(
    "http_server_active_requests",
    "HTTP requests that have no answer yet; redirects from the L1 cache are answered at once.",
)

ERRORS = Counter(
    "hopgate_errors",
    "Requests and batches of events that ended with an error, by kind: a class of Hopgate's errors,"
    " TimeoutError (a deadline passed), or unexpected (a fault of Hopgate). An event that fails is counted at"
    " each attempt.",
    ("kind",),
)

FRONT_CONNECTIONS = Gauge(
    "hopgate_front_connections", "Connections of clients that the front, the native data plane, has open."
)
FRONT_UNANSWERED = Counter(
    "hopgate_front_unanswered",
    "Requests that the front answered by 503, as the control plane behind it did not answer.",
)

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
LAYERS = Counter(
    "hopgate_layer_requests",
    "Look-ups of slugs for redirects, by layer (l1, cache, replica, store) and result (hit, miss, failed);"
    " hits and misses of l1 are all redirect requests within their client's rate limit.",
    ("layer", "result"),
)
L1_ENTRIES = Gauge("hopgate_first_cache_entries", "Entries in the L1 cache, stale ones included.")
BLOCKS = Gauge("hopgate_blocks", "Blocked hosts and slugs, by kind.", ("kind",), across="max")
LIMITED = Counter("hopgate_limited", "Requests refused by a rate limit, by policy.", ("policy",))

LIMITER_DECISIONS = Counter(
    "hopgate_limiter_decisions",
    "Decisions of the rate limiter, by policy: requests admitted (refunded ones included) and refused.",
    ("policy", "decision"),
)
LIMITER_CLIENTS = Gauge(
    "hopgate_limiter_clients", "Clients that the rate limiter remembers, by policy.", ("policy",)
)
LIMITER_LEASED = Gauge(
    "hopgate_limiter_leased_tokens", "Tokens that processes hold on lease from Redis, by policy.", ("policy",)
)

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
BREAKER_STATE = Gauge(
    "hopgate_breaker_state",
    "Processes in which this circuit breaker is closed, open or half_open.",
    ("guard", "state"),
)
BREAKER_TRANSITIONS = Counter(
    "hopgate_breaker_transitions",
    "Transitions of this circuit breaker to the state closed, open or half_open.",
    ("guard", "to"),
)
BREAKER_OPENED = Counter("hopgate_breaker_opened", "Times this circuit breaker has opened.", ("guard",))
BREAKER_REFUSED = Counter("hopgate_breaker_refused", "Calls refused by this circuit breaker.", ("guard",))
BULKHEAD_REFUSED = Counter(
    "hopgate_bulkhead_refused", "Calls refused because their bulkhead was full.", ("guard",)
)
RETRIED_READS = Counter(
    "hopgate_retried_reads", "Reads repeated on another connection after theirs was lost.", ("guard",)
)

# --- PostgreSQL --------------------------------------------------------------------------

POOL_CONNECTIONS = Gauge(
    "db_client_connection_count",
    "Connections to PostgreSQL, by pool and state: used, or idle.",
    ("pool", "state"),
)
POOL_MAX = Gauge(
    "db_client_connection_max", "The most connections to PostgreSQL that a pool opens.", ("pool",)
)
POOL_WAITING = Gauge(
    "db_client_connection_pending_requests", "Calls that wait for a connection to PostgreSQL.", ("pool",)
)

# --- events ------------------------------------------------------------------------------

EVENTS = Counter(
    "hopgate_events",
    "Events of a work queue by outcome: applied, stale (a later change or the same clicks had been applied"
    " before), retried (they failed, and come again), parked (moved to the dead-letter queue).",
    ("queue", "outcome"),
)
EVENT_PROCESSING = Histogram(
    "hopgate_event_processing_seconds",
    "Time that a worker needed to apply an event, together with the others of its batch.",
    ("queue",),
)
EVENT_AGE = Histogram(
    "hopgate_event_age_seconds",
    "Age of events when a worker received them: since their change was committed, or since other events were"
    " published. Retries count again.",
    ("queue",),
    bounds=AGES_S,
)
CHANGE_VISIBLE = Histogram(
    "hopgate_change_visible_seconds",
    "Time from the commit of a change by another process until this gateway received it, and stopped serving"
    " the former state.",
    bounds=AGES_S,
)

QUEUE_MESSAGES = Gauge(
    "hopgate_queue_messages",
    "Messages in a queue: ready, as the broker counts them, and unacknowledged by the consumer of this"
    " process, as AMQP has no total of all consumers. Missing while unknown. All workers report the same"
    " ready messages: take the largest.",
    ("queue", "state"),
    across="max",
)

# --- traces ------------------------------------------------------------------------------

SPANS_EXPORTED = Counter("hopgate_spans_exported", "Spans of traces that the collector took.")
SPANS_DROPPED = Counter(
    "hopgate_spans_dropped",
    "Spans lost because the queue was full or the collector did not take them, and those of failed or slow"
    " requests beyond 50 a second.",
)

# --- clicks and changes ------------------------------------------------------------------

CLICKS_BUFFERED = Gauge(
    "hopgate_clicks_buffered",
    "Clicks in memory that wait to be published; the L1 cache passes on its own once a second.",
)
CLICKS_PUBLISHED = Counter("hopgate_clicks_published", "Clicks that the broker has confirmed.")
CLICKS_SPILLED = Counter(
    "hopgate_clicks_spilled", "Clicks written to the local disk because the broker did not confirm."
)
CLICK_SPOOL = Gauge(
    "hopgate_click_spool_bytes", "Size of the clicks on the local disk that wait to be published."
)
VISIT_SPOOL = Gauge(
    "hopgate_visit_spool_bytes",
    "Size of what visits looked like, on the local disk, that waits to be published.",
)
CLICKS_ADDED = Counter("hopgate_clicks_added", "Clicks in the batches that a worker has added to the store.")
CLICKS_DROPPED = Counter(
    "hopgate_clicks_dropped", "Clicks lost because neither the broker nor the local disk accepted them."
)
VISITS_UNDESCRIBED = Counter(
    "hopgate_visits_undescribed",
    "Visits that are counted in totals alone: too many different ones came within a second, or neither the"
    " broker nor the local disk accepted what they looked like.",
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
WEBHOOK_ATTEMPTS = Counter(
    "hopgate_webhook_attempts",
    "Attempts to deliver an event to a webhook, by outcome: delivered, failed, or dead, for good.",
    ("outcome",),
)
WEBHOOK_PENDING = Gauge(
    "hopgate_webhook_pending", "Planned deliveries to webhooks that are not made yet.", across="max"
)
WEBHOOK_OLDEST = Gauge(
    "hopgate_webhook_oldest_seconds",
    "Age of the oldest planned delivery to a webhook that is not made yet.",
    across="max",
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
