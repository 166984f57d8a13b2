"""Figures of a drill, computed from its journal: ratios, seconds, counts. Latencies are open-loop."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.harness.journal import Kind, Operation, Outcome, of_kind

# The baseline leaves out the first seconds of a load, when connections open and caches fill.
_USUAL_S = 8.0
_NOISE_S = 0.003


@dataclass(frozen=True)
class Window:
    """
    When the load began, the fault began, its healing began, and it was healed (monotonic seconds).

    Links created before `began` are warm.
    """

    began: float
    fault: float
    heal: float
    healed: float


def figures(history: Sequence[Operation], window: Window) -> dict[str, float]:
    """
    Return the figures of a drill by name.

    `*_errors` are shares of requests with a 5xx or without a response. `first_*_s` is the time from
    the healing to the first success among the requests of that kind due after it. `stale_s` is the
    longest time for which a visitor received a target after its replacement was acknowledged.

    `warm_*` cover visits of links that every gateway had served before the load began.
    `warm_p99_ratio` is their p99 during the fault over their p99 in the seconds before it, or over
    3 ms if that is more: with a median of 1.3 ms, the p99 of an undisturbed run varies between 2 and
    5 ms on two processors that the load shares. `found_again` counts the creates of unknown outcome
    that a retry with the same key found stored.
    """
    visits = of_kind(history, Kind.VISIT)
    writes = of_kind(history, Kind.CREATE, Kind.EDIT, Kind.DELETE)
    during = (window.fault, window.heal)
    creates = of_kind(history, Kind.CREATE)
    warm_slugs = {op.slug for op in creates if op.reply is not None and op.reply.at < window.began}
    warm = [op for op in visits if op.slug in warm_slugs]
    usual = (max(window.began, window.fault - _USUAL_S), window.fault)
    warm_p99_s, usual_p99_s = (quantile(_times(_due(warm, when)), 0.99) for when in (during, usual))
    found: dict[str, float] = {
        "visits": len(_due(visits, during)),
        "writes": len(_due(writes, during)),
        "visit_errors": _errors(_due(visits, during)),
        "visit_errors_1s": _errors(_due(visits, (window.fault, window.fault + 1))),
        "visit_errors_after_1s": _errors(_due(visits, (window.fault + 1, window.heal))),
        "write_errors": _errors(_due(writes, during)),
        "visit_p99_s": quantile(_times(_due(visits, during)), 0.99),
        "visit_max_s": max(_times(_due(visits, during)), default=0.0),
        "create_p99_s": quantile(_times(_due(of_kind(writes, Kind.CREATE), during)), 0.99),
        "write_max_s": max(_times(_due(writes, during)), default=0.0),
        "baseline_visit_p99_s": quantile(_times(_due(visits, (window.began, window.fault))), 0.99),
        "warm_errors": _errors(_due(warm, during)),
        "usual_warm_p99_s": usual_p99_s,
        "warm_p99_s": warm_p99_s,
        "warm_p99_ratio": warm_p99_s / max(usual_p99_s, _NOISE_S),
        "first_visit_s": _first(visits, window.healed),
        "first_create_s": _first(of_kind(writes, Kind.CREATE), window.healed),
        "visit_errors_late": _errors(_due(visits, (window.healed + 3, math.inf))),
        "write_errors_late": _errors(_due(writes, (window.healed + 3, math.inf))),
        "without_retry_after": sum(
            1 for op in history for reply in op.replies if reply.status == 503 and not reply.retry_after
        ),
        "refused": sum(1 for op in visits if op.status == 429),
        "unknown": sum(1 for op in writes if op.outcome is Outcome.UNKNOWN),
        "replayed": sum(1 for op in writes if any(reply.replayed for reply in op.replies)),
        "found_again": sum(1 for op in creates if _found_again(op)),
        "stale_s": stale_s(history),
    }
    return found


def failures(history: Sequence[Operation], window: Window) -> dict[str, int]:
    """
    Count the requests with a 5xx or without a response, by what the client received.

    A key such as `visit during the fault: 503 postgresql is not available.` tells a look-up that took
    too long from one that was shed, which the shares of errors do not.
    """
    found: Counter[str] = Counter()
    for op in history:
        if op.status == 0 or op.status >= 500:
            due = op.intent.due_at
            when = "before" if due < window.fault else "during" if due < window.healed else "after"
            what = "none" if op.reply is None else f"{op.status} {op.reply.error or op.reply.detail}"
            found[f"{op.intent.kind} {when} the fault: {what}"] += 1
    return dict(found)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def stale_s(history: Sequence[Operation]) -> float:
    """Return the longest time (s) for which a target was served after its replacement was acknowledged."""
    states: dict[str, list[tuple[int, float, str | None]]] = defaultdict(list)
    for op in of_kind(history, Kind.CREATE, Kind.EDIT):
        if op.outcome is Outcome.DONE and op.reply is not None and op.slug is not None:
            states[op.slug].append((op.version or 0, op.reply.at, op.intent.url))
    for op in of_kind(history, Kind.DELETE):
        if op.outcome is Outcome.DONE and op.reply is not None and op.slug is not None:
            states[op.slug].append((2**53, op.reply.at, None))
    longest = 0.0
    for visit in of_kind(history, Kind.VISIT):
        if visit.reply is None or not 300 <= visit.reply.status < 400 or visit.slug not in states:
            continue
        versions = {url: version for version, _, url in states[visit.slug]}
        seen = versions.get(visit.reply.location)
        if seen is not None:
            replaced = [at for version, at, _ in states[visit.slug] if version > seen]
            longest = max([longest, *(visit.intent.sent_at - at for at in replaced)])
    return longest


def _due(operations: Sequence[Operation], period: tuple[float, float]) -> list[Operation]:
    return [op for op in operations if period[0] <= op.intent.due_at < period[1]]


def _errors(operations: Sequence[Operation]) -> float:
    failed = sum(1 for op in operations if op.status == 0 or op.status >= 500)
    return failed / len(operations) if operations else 0.0


def _found_again(create: Operation) -> bool:
    first = Operation(create.intent, create.replies[:1])
    return first.outcome is Outcome.UNKNOWN and any(reply.replayed for reply in create.replies[1:])


def _times(operations: Sequence[Operation]) -> list[float]:
    return [op.took_s for op in operations if math.isfinite(op.took_s)]


def _first(operations: Sequence[Operation], after: float) -> float:
    good = [
        op.reply.at - after
        for op in operations
        if op.intent.due_at >= after and op.reply is not None and op.outcome is not Outcome.UNKNOWN
    ]
    return min(good, default=math.inf)
