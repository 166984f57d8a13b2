"""
Samples metrics and the outbox, after a fault begins and again after its healing.

Clients cannot observe when Redis serves look-ups again or when RabbitMQ confirms again, because no
request fails without them. Metrics of the gateways show the first, an outbox row that leaves the second.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
import psycopg

from tests.faults.harness.figures import Window
from tests.faults.harness.stage import Stage

# Gathering metrics blocks a gateway for some milliseconds, so samples are rare, and there are none
# during most of the time in which latencies are measured.
_EVERY_S = 0.4
_EARLY_S = 2.0
_CACHE, _STORE = ('hopgate_look_ups_total{source="cache"}', 'hopgate_look_ups_total{source="store"}')
_CLOSED = 'hopgate_breaker_closed{guard="redis.read"}'
_OPENED = 'hopgate_breaker_opened_total{guard="redis.read"}'
# The hit ratio covers the last seconds of the load.
_LATE_S = 3.0


@dataclass(frozen=True)
class Sample:
    """Metrics of each gateway at one time (monotonic seconds); a gateway without a response is missing."""

    at: float
    metrics: Mapping[int, Mapping[str, float]]


class Watch:
    """A context manager from the beginning of the fault to the end of the load; see `healed`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._is_healed = False
        self._samples: list[Sample] = []
        self._confirmed_s = math.nan
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._look_at_gateways)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def healed(self) -> None:
        """Mark the end of the fault, and watch the outbox for the first confirmed change."""
        self._is_healed = True
        self._threads.append(threading.Thread(target=self._look_at_outbox, args=(time.monotonic(),)))
        self._threads[-1].start()

    def figures(self, window: Window) -> dict[str, float]:
        """
        Return figures of a drill; a figure without a measurement is left out.

        `cache_back_s` and `confirmed_s` are the times from the healing to the first look-up that
        Redis answered, and to the first confirm of a change that waited in the outbox.
        `cache_left_s` is the time from the fault until the circuit breaker for Redis was open in every
        gateway; `cache_given_up` is how often it opened, in the gateway with the most.
        `late_hit_ratio` is the share of look-ups that Redis answered in the last seconds of the load.
        """
        found = {
            "cache_left_s": self._cache_left_s(window),
            "cache_given_up": max(self._grown(_OPENED, window.fault, math.inf), default=math.nan),
            "cache_back_s": self._cache_back_s(window),
            "confirmed_s": self._confirmed_s,
            "late_hit_ratio": self._late_hit_ratio(),
        }
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def _cache_left_s(self, window: Window) -> float:
        """The time until every gateway had a sample with an open breaker."""
        first: dict[int, float] = {}
        for sample in self._samples:
            for port, metrics in sample.metrics.items():
                if window.fault <= sample.at < window.heal and metrics.get(_CLOSED) == 0:
                    first.setdefault(port, sample.at - window.fault)
        return max(first.values()) if len(first) == len(self._stage.gateways) else math.nan

    def _cache_back_s(self, window: Window) -> float:
        after = [sample for sample in self._samples if sample.at >= window.healed]
        for sample in after[1:]:
            for port, metrics in sample.metrics.items():
                if metrics.get(_CACHE, 0) > after[0].metrics.get(port, metrics).get(_CACHE, 0):
                    return sample.at - window.healed
        return math.nan

    def _late_hit_ratio(self) -> float:
        end = self._samples[-1].at if self._samples else 0.0
        hits, misses = (sum(self._grown(name, end - _LATE_S, math.inf)) for name in (_CACHE, _STORE))
        return hits / (hits + misses) if hits + misses else math.nan

    def _grown(self, name: str, since: float, until: float) -> Sequence[float]:
        """Return the growth of a counter in that time, for each gateway."""
        seen: dict[int, list[float]] = {}
        for sample in self._samples:
            if since <= sample.at < until:
                for port, metrics in sample.metrics.items():
                    seen.setdefault(port, []).append(metrics.get(name, 0))
        return [values[-1] - values[0] for values in seen.values()]

    def _look_at_gateways(self) -> None:
        early = time.monotonic() + _EARLY_S
        with httpx.Client(timeout=1.0) as client:
            while not self._over.wait(_EVERY_S):
                if not self._is_healed and time.monotonic() > early:
                    continue
                metrics = {}
                for gateway in self._stage.gateways:
                    with contextlib.suppress(httpx.HTTPError):
                        metrics[gateway.port] = _parsed(client.get(f"{gateway.url}/metrics").text)
                self._samples.append(Sample(time.monotonic(), metrics))

    def _look_at_outbox(self, healed: float) -> None:
        """Poll until a row that was in the outbox at the healing has left it."""
        with psycopg.connect(self._stage.settings["HOPGATE_DATABASE_URL"], autocommit=True) as connection:
            count = _counter(connection)
            last, waiting = count(None)
            while waiting and not self._over.wait(0.02):
                if count(last)[1] < waiting:
                    self._confirmed_s = time.monotonic() - healed
                    return


def _counter(connection: psycopg.Connection[tuple[int, int]]) -> Callable[[int | None], tuple[int, int]]:
    def count(last: int | None) -> tuple[int, int]:
        row = connection.execute(
            "SELECT coalesce(max(id), 0), count(*) FROM outbox WHERE id <= coalesce(%s::bigint, id)", (last,)
        ).fetchone()
        assert row is not None
        return row

    return count


def _parsed(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines if name}
