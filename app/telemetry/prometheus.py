"""Samples in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import assert_never

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.telemetry.families import Counter, Family, Gauge, Histogram
from app.telemetry.samples import Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Found = dict[tuple[str, ...], list[float]]


class _Collector(Collector):
    def __init__(self, read: Callable[[], Samples]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        found: dict[Family, _Found] = {}
        for (family, labels), values in self._read().items():
            found.setdefault(family, {})[labels] = values
        for family in sorted(found, key=lambda one: one.name):
            yield _metric(family, found[family])


def _metric(family: Family, found: _Found) -> Metric:
    match family:
        case Histogram():
            histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for labels, (*counts, total) in sorted(found.items()):
                bounds = [*map(repr, family.bounds_of(labels)), "+Inf"]
                buckets = list(zip(bounds, accumulate(counts), strict=True))
                histogram.add_metric(labels, buckets, total)
            return histogram
        case Counter() | Gauge():
            kind = CounterMetricFamily if isinstance(family, Counter) else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=family.labels)
            for labels, values in sorted(found.items()):
                metric.add_metric(labels, values[0])
            return metric
        case _:
            assert_never(family)


def _registry(read: Callable[[], Samples]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(read))
    return registry


def text(samples: Samples) -> bytes:
    """Return *samples* in that format."""
    return generate_latest(_registry(lambda: samples))


def serve(host: str, port: int, read: Callable[[], Samples]) -> Callable[[], None]:
    """Answer scrapes with what *read* returns, in a thread; call the result to stop."""
    server, thread = start_http_server(port, host, _registry(read))

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
