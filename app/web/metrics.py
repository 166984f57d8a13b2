"""What one gateway process reports about itself, gathered when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from app.domain.errors import Unavailable
from app.ports import Gate, Policy
from app.resilience.admission import Admission
from app.resilience.breaker import State
from app.resilience.guard import GuardSnapshot
from app.service.consistency import ConsistencySampler
from app.service.hot_links import HotLinks
from app.service.redirects import Redirects
from app.telemetry import prometheus
from app.telemetry.samples import Samples, merge
from app.telemetry.sharing import SharedSamples
from app.web import errors
from app.web.answer import Answer
from app.web.redirect import RedirectLane

_WRITE_EVERY_S = 1.0
_SOURCES = ("memory", "look_up")
_STATUSES = ("3xx", "404", "410", "429", "503")


def redirect_samples(lane: RedirectLane, gate: Gate) -> Samples:
    """
    Visits by source and status.

    Redirects from memory are what the gate has admitted and nobody else has counted: so they
    need not be counted themselves.
    """
    from_memory = gate.counted(Policy.REDIRECT).admitted - lane.missed - lane.hot_errors.total()
    # All series from the start: one that appears with its first event hides that event from `rate`.
    samples: Samples = {
        ("hopgate_redirects", (source, status)): [0] for source in _SOURCES for status in _STATUSES
    }
    samples["hopgate_redirects", ("memory", "3xx")] = [from_memory]
    for source, counts in zip(_SOURCES, (lane.hot_errors, lane.answered), strict=True):
        for status, count in counts.items():
            name = "3xx" if 300 <= status < 400 else str(status)
            samples.setdefault(("hopgate_redirects", (source, name)), [0])[0] += count
    return samples


def process_samples(
    redirects: Redirects[Answer], hot: HotLinks[Answer], admission: Admission, gate: Gate
) -> Samples:
    """Everything else that a gateway counts by itself."""
    return {
        ("hopgate_processes", ()): [1],
        ("hopgate_first_cache_entries", ()): [len(hot)],
        ("hopgate_admission_limit", ()): [admission.limit],
        ("hopgate_admission_in_flight", ()): [admission.in_flight],
        ("hopgate_stale_redirects", ()): [redirects.stale_answers],
        ("hopgate_event_loop_lag_seconds", ()): [admission.lag_s],
        **{("hopgate_look_ups", (source,)): [count] for source, count in redirects.look_ups.items()},
        **{("hopgate_shed", (kind.name.lower(),)): [count] for kind, count in admission.refused.items()},
        **{("hopgate_limited", (policy.value,)): [gate.counted(policy).refused] for policy in Policy},
    }


def guard_samples(guards: Mapping[str, GuardSnapshot]) -> Samples:
    """How the ways to the dependencies stand."""
    samples: Samples = {}
    for guard, stands in guards.items():
        samples["hopgate_breaker_closed", (guard,)] = [float(stands.state is State.CLOSED)]
        samples["hopgate_breaker_opened", (guard,)] = [stands.opened_total]
        samples["hopgate_breaker_refused", (guard,)] = [stands.refused_total]
        samples["hopgate_bulkhead_refused", (guard,)] = [stands.crowded_total]
        samples["hopgate_retried_reads", (guard,)] = [stands.retried_total]
    return samples


def consistency_samples(sampler: ConsistencySampler) -> Samples:
    """What the cache held when changes were looked at again."""
    samples: Samples = {}
    for window_s, counts in sampler.snapshot().items():
        samples["hopgate_cache_checked", (f"{window_s}s",)] = [counts.checked]
        samples["hopgate_cache_inconsistent", (f"{window_s}s",)] = [counts.inconsistent]
    return samples


class Metrics:
    """
    The metrics of a gateway, whichever of its processes is asked.

    Args:
        sources: gathered for every answer.
        shared: where processes put theirs together; None if there is only this one.
    """

    def __init__(self, sources: Sequence[Callable[[], Samples]], shared: SharedSamples | None) -> None:
        self._sources = sources
        self._shared = shared
        # One after the other, or what was counted earlier could be written later.
        self._turn = asyncio.Lock()

    async def answer(self) -> Answer:
        """Return all of it as text."""
        try:
            async with self._turn:
                text = await asyncio.to_thread(self._text, self._own())
        except Unavailable as error:
            return errors.unavailable(error)
        return Answer(200, [("content-type", prometheus.CONTENT_TYPE)], text)

    async def run(self) -> None:
        """Let the other processes know once a second, until cancelled."""
        while self._shared is not None:
            # A full disk is no reason to stop, and whoever scrapes is told.
            with suppress(Unavailable):
                async with self._turn:
                    await asyncio.to_thread(self._shared.write, self._own())
            await asyncio.sleep(_WRITE_EVERY_S)
        await asyncio.Event().wait()

    def close(self) -> None:
        """Leave what was counted to a successor."""
        if self._shared is not None:
            with suppress(Unavailable):  # the folder may be gone already
                self._shared.close(self._own())

    def _own(self) -> Samples:
        return merge(source() for source in self._sources)

    def _text(self, own: Samples) -> bytes:
        if self._shared is None:
            return prometheus.text(own)
        # What is shown must be written first, or a crash would take it back.
        self._shared.write(own)
        return prometheus.text(self._shared.read())
