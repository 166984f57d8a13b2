"""Turns the counts of components into samples. A protocol names what is read of each component."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Protocol

from app.concurrency.guard import GuardSnapshot
from app.domain.blocks import BlockIndex, BlockKind
from app.ports import OutboxDepth, Policy, QueueDepth, RateLimiter
from app.resilience.admission import AdmissionController
from app.resilience.breaker import BreakerState
from app.telemetry.families import (
    ADMISSION_IN_FLIGHT,
    ADMISSION_LIMIT,
    BLOCKS,
    BREAKER_CLOSED,
    BREAKER_OPENED,
    BREAKER_REFUSED,
    BREAKER_STATE,
    BREAKER_TRANSITIONS,
    BULKHEAD_REFUSED,
    CACHE_CHECKED,
    CACHE_INCONSISTENT,
    CLICK_SPOOL,
    CLICKS_ADDED,
    CLICKS_BUFFERED,
    CLICKS_DROPPED,
    CLICKS_PUBLISHED,
    CLICKS_SPILLED,
    FRONT_CONNECTIONS,
    FRONT_UNANSWERED,
    L1_ENTRIES,
    LAYERS,
    LIMITED,
    LIMITER_CLIENTS,
    LIMITER_DECISIONS,
    LIMITER_LEASED,
    LOOK_UPS,
    LOOP_LAG,
    OUTBOX_OLDEST,
    OUTBOX_ROWS,
    OUTBOX_STALLED,
    POOL_CONNECTIONS,
    POOL_MAX,
    POOL_WAITING,
    QUEUE_MESSAGES,
    REDIRECTS,
    RETRIED_READS,
    SHED,
    SPANS_DROPPED,
    SPANS_EXPORTED,
    STALE_REDIRECTS,
    VISIT_SPOOL,
    VISITS_UNDESCRIBED,
    WEBHOOK_ATTEMPTS,
    WEBHOOK_OLDEST,
    WEBHOOK_PENDING,
)
from app.telemetry.samples import Samples

_SOURCES = ("memory", "look_up")
_STATUSES = ("3xx", "404", "410", "429", "451", "503")


class RedirectCounts(Protocol):
    """Answers to admitted redirect requests; see `app.web.redirects.RedirectHandler`."""

    @property
    def missed(self) -> int:
        """How many the L1 cache could not answer."""

    @property
    def answered(self) -> Mapping[int, int]:
        """The answers to those, by status."""

    @property
    def l1_errors(self) -> Mapping[int, int]:
        """Answers from the L1 cache other than redirects, by status."""


class LayerCounts(Protocol):
    """Slugs that were looked up in one layer."""

    @property
    def hits(self) -> int:
        """Slugs that it had."""

    @property
    def misses(self) -> int:
        """Slugs that it had not, or only an outdated copy of."""

    @property
    def failures(self) -> int:
        """Slugs that it did not answer for."""


class LookUpCounts(Protocol):
    """Look-ups after an L1 miss; see `app.service.resolver.Resolver`."""

    @property
    def look_ups(self) -> Mapping[str, int]:
        """How many, by the source of the answer."""

    @property
    def stale_answers(self) -> int:
        """How many stale answers were given instead."""

    @property
    def layers(self) -> Mapping[str, LayerCounts]:
        """What the layers below the L1 cache were asked for."""


class ConsistencyCounts(Protocol):
    """Changed links that were compared with the cache."""

    @property
    def checked(self) -> int:
        """How many."""

    @property
    def inconsistent(self) -> int:
        """How many of them the cache held a wrong copy of."""


class Sampler(Protocol):
    """Compares changed links with the cache; see `worker.sampling`."""

    def snapshot(self) -> Mapping[int, ConsistencyCounts]:
        """Return the counts by seconds since the change."""


class Guards(Protocol):
    """The guards of dependencies; see `app.adapters.guards`."""

    def snapshot(self) -> Mapping[str, GuardSnapshot]:
        """Return the state of each guard, by name."""


class VisitDescriptions(Protocol):
    """Describes visits; see `app.bootstrap.visits.Descriptions`."""

    @property
    def undescribed(self) -> int:
        """How many visits have no description."""

    @property
    def spooled_bytes(self) -> int:
        """The size of the descriptions on the local disk."""


class ClickCounts(Protocol):
    """Publishes clicks; see `app.service.clicks.ClickPublisher`."""

    @property
    def buffered(self) -> int:
        """How many clicks wait in memory."""

    @property
    def published(self) -> int:
        """How many the broker has confirmed."""

    @property
    def spilled(self) -> int:
        """How many were written to the disk."""

    @property
    def spooled_bytes(self) -> int:
        """The size of those that wait there."""

    @property
    def dropped(self) -> int:
        """How many clicks were lost."""


class WebhookWatch(Protocol):
    """As `worker.webhooks.WebhookDispatcher`."""

    attempts: Counter[str]
    pending: int | None
    oldest_s: float | None


class OutboxWatch(Protocol):
    """Knows the depth of the outbox; see `worker.outbox_depth`."""

    @property
    def depth(self) -> OutboxDepth | None:
        """The depth; None while it is unknown."""

    @property
    def stalled_s(self) -> float:
        """For how long rows have waited and none was delivered."""


class PoolState(Protocol):
    """A pool of connections; see `app.adapters.postgres.pool_state.PoolState`."""

    @property
    def used(self) -> int:
        """Connections that calls use."""

    @property
    def idle(self) -> int:
        """Connections that none uses."""

    @property
    def most(self) -> int:
        """The most connections."""

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection."""


class ClicksAdded(Protocol):
    """Adds clicks up; see `worker.clicks.ClickConsumer`."""

    @property
    def added(self) -> int:
        """How many."""


class QueueWatch(Protocol):
    """Knows the depth of queues; see `worker.queue_depths`."""

    @property
    def depths(self) -> Mapping[str, QueueDepth] | None:
        """The depth of each queue by name; None while it is unknown."""


def redirect_samples(counts: RedirectCounts, limiter: RateLimiter) -> Samples:
    """
    Report redirects by source and status.

    Redirects from the L1 cache are not counted on their way: they are the admitted requests that
    are counted nowhere else.
    """
    hits = limiter.counted(Policy.REDIRECT).admitted - counts.missed
    # All series from the start: a series that appears with its first event hides that event from `rate`.
    samples: Samples = {REDIRECTS.of(source, status): [0] for source in _SOURCES for status in _STATUSES}
    samples[REDIRECTS.of("memory", "3xx")] = [hits - sum(counts.l1_errors.values())]
    samples[LAYERS.of("l1", "hit")] = [hits]
    samples[LAYERS.of("l1", "miss")] = [counts.missed]
    for source, by_status in zip(_SOURCES, (counts.l1_errors, counts.answered), strict=True):
        for status, count in by_status.items():
            name = "3xx" if 300 <= status < 400 else str(status)
            samples.setdefault(REDIRECTS.of(source, name), [0])[0] += count
    return samples


def look_up_samples(counts: LookUpCounts, l1: Sized) -> Samples:
    """Report what happened after L1 misses, and how many entries the L1 cache holds."""
    samples: Samples = {
        STALE_REDIRECTS.of(): [counts.stale_answers],
        L1_ENTRIES.of(): [len(l1)],
        **{LOOK_UPS.of(source): [count] for source, count in counts.look_ups.items()},
    }
    for layer, found in counts.layers.items():
        samples[LAYERS.of(layer, "hit")] = [found.hits]
        samples[LAYERS.of(layer, "miss")] = [found.misses]
        samples[LAYERS.of(layer, "failed")] = [found.failures]
    return samples


def block_samples(index: BlockIndex) -> Samples:
    """Report how many blocks this process knows."""
    return {
        BLOCKS.of(BlockKind.HOST): [len(index.hosts)],
        BLOCKS.of(BlockKind.SLUG): [len(index.slugs)],
    }


def limiter_samples(limiter: RateLimiter) -> Samples:
    """Report the decisions of the rate limiter, and what it holds."""
    samples: Samples = {}
    for policy in Policy:
        counted, name = limiter.counted(policy), policy.value
        samples[LIMITED.of(name)] = [counted.refused]
        samples[LIMITER_DECISIONS.of(name, "admitted")] = [counted.admitted]
        samples[LIMITER_DECISIONS.of(name, "refused")] = [counted.refused]
        samples[LIMITER_CLIENTS.of(name)] = [counted.clients]
        samples[LIMITER_LEASED.of(name)] = [counted.leased]
    return samples


def admission_samples(admission: AdmissionController) -> Samples:
    """Report admission control."""
    return {
        ADMISSION_LIMIT.of(): [admission.limit],
        ADMISSION_IN_FLIGHT.of(): [admission.in_flight],
        LOOP_LAG.of(): [admission.lag_s],
        **{SHED.of(kind.name.lower()): [count] for kind, count in admission.refused.items()},
    }


def guard_samples(guards: Guards) -> Samples:
    """Report the guards of dependencies, by name."""
    samples: Samples = {}
    for name, guard in guards.snapshot().items():
        samples[BREAKER_CLOSED.of(name)] = [float(guard.state is BreakerState.CLOSED)]
        for state in BreakerState:
            samples[BREAKER_STATE.of(name, state)] = [float(guard.state is state)]
            samples[BREAKER_TRANSITIONS.of(name, state)] = [guard.entered[state]]
        samples[BREAKER_OPENED.of(name)] = [guard.opened_total]
        samples[BREAKER_REFUSED.of(name)] = [guard.refused_total]
        samples[BULKHEAD_REFUSED.of(name)] = [guard.crowded_total]
        samples[RETRIED_READS.of(name)] = [guard.retried_total]
    return samples


def visit_samples(visits: VisitDescriptions | None) -> Samples:
    """Report visits that statistics know the number of alone, and descriptions that wait."""
    return {
        VISITS_UNDESCRIBED.of(): [0 if visits is None else visits.undescribed],
        VISIT_SPOOL.of(): [0 if visits is None else visits.spooled_bytes],
    }


def click_samples(clicks: ClickCounts) -> Samples:
    """Report where clicks are, and those that are lost."""
    return {
        CLICKS_BUFFERED.of(): [clicks.buffered],
        CLICKS_PUBLISHED.of(): [clicks.published],
        CLICKS_SPILLED.of(): [clicks.spilled],
        CLICK_SPOOL.of(): [clicks.spooled_bytes],
        CLICKS_DROPPED.of(): [clicks.dropped],
    }


def added_clicks_samples(clicks: ClicksAdded) -> Samples:
    """Report the clicks that a worker added up."""
    return {CLICKS_ADDED.of(): [clicks.added]}


def consistency_samples(sampler: Sampler) -> Samples:
    """Report how changed links compared with the cache, by seconds since the change."""
    samples: Samples = {}
    for window_s, counts in sampler.snapshot().items():
        samples[CACHE_CHECKED.of(f"{window_s}s")] = [counts.checked]
        samples[CACHE_INCONSISTENT.of(f"{window_s}s")] = [counts.inconsistent]
    return samples


def outbox_samples(outbox: OutboxWatch) -> Samples:
    """Report the depth of the outbox; nothing while it is unknown."""
    depth = outbox.depth
    if depth is None:
        return {}
    return {
        OUTBOX_ROWS.of(): [depth.rows],
        OUTBOX_OLDEST.of(): [depth.oldest_s],
        OUTBOX_STALLED.of(): [outbox.stalled_s],
    }


def webhook_samples(webhooks: WebhookWatch) -> Samples:
    """Report attempts at deliveries; what waits as well, while it is known."""
    samples: Samples = {WEBHOOK_ATTEMPTS.of(outcome): [count] for outcome, count in webhooks.attempts.items()}
    if webhooks.pending is not None and webhooks.oldest_s is not None:
        samples[WEBHOOK_PENDING.of()] = [webhooks.pending]
        samples[WEBHOOK_OLDEST.of()] = [webhooks.oldest_s]
    return samples


def queue_samples(watch: QueueWatch) -> Samples:
    """Report the depth of queues; nothing while it is unknown."""
    samples: Samples = {}
    for name, depth in (watch.depths or {}).items():
        samples[QUEUE_MESSAGES.of(name, "ready")] = [depth.ready]
        if depth.unacknowledged is not None:
            samples[QUEUE_MESSAGES.of(name, "unacknowledged")] = [depth.unacknowledged]
    return samples


def pool_samples(pools: Iterable[Callable[[], Mapping[str, PoolState]]]) -> Samples:
    """Report connection pools, by name."""
    samples: Samples = {}
    for states in pools:
        for name, pool in states().items():
            samples[POOL_CONNECTIONS.of(name, "used")] = [pool.used]
            samples[POOL_CONNECTIONS.of(name, "idle")] = [pool.idle]
            samples[POOL_MAX.of(name)] = [pool.most]
            samples[POOL_WAITING.of(name)] = [pool.waiting]
    return samples


class SpanCounts(Protocol):
    """Ended spans; see `app.telemetry.span_export.BoundedProcessor`."""

    @property
    def exported(self) -> int:
        """How many the collector took."""

    @property
    def dropped(self) -> int:
        """How many it did not get."""


class OmittedSpans(Protocol):
    """Spans that were not made; see `app.telemetry.tracing.Tracing`."""

    @property
    def omitted(self) -> int:
        """How many."""


def span_samples(spans: SpanCounts, tracing: OmittedSpans) -> Samples:
    """Return the counts of spans."""
    return {
        SPANS_EXPORTED.of(): [spans.exported],
        SPANS_DROPPED.of(): [spans.dropped + tracing.omitted],
    }


class FrontCounts(Protocol):
    """The native data plane; see `app.web.front`."""

    @property
    def connections(self) -> int:
        """Connections of clients that are open."""

    @property
    def unanswered(self) -> int:
        """Requests that the application behind it did not answer."""


def front_samples(front: FrontCounts | None) -> Samples:
    """Report the front; zeros without one, so that dashboards tell none from no answer."""
    return {
        FRONT_CONNECTIONS.of(): [0 if front is None else front.connections],
        FRONT_UNANSWERED.of(): [0 if front is None else front.unanswered],
    }
