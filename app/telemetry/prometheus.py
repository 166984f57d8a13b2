"""Samples in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.telemetry.samples import BUCKETS_S, FAMILIES, Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = [*(repr(bound) for bound in BUCKETS_S), "+Inf"]


class _Collector(Collector):
    def __init__(self, read: Callable[[], Samples]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        samples = self._read()
        for name, family in FAMILIES.items():
            found = {labels: values for (of, labels), values in samples.items() if of == name}
            if not found:
                continue
            if family.kind == "histogram":
                histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
                for labels, (*counts, total) in sorted(found.items()):
                    buckets = list(zip(_BOUNDS, accumulate(counts), strict=True))
                    histogram.add_metric(labels, buckets, total)
                yield histogram
            else:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                metric = kind(name, family.help, labels=family.labels)
                for labels, values in sorted(found.items()):
                    metric.add_metric(labels, values[0])
                yield metric


def _registry(read: Callable[[], Samples]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(read))
    return registry


def text(samples: Samples) -> bytes:
    """Return *samples* as text."""
    return generate_latest(_registry(lambda: samples))


def serve(host: str, port: int, read: Callable[[], Samples]) -> Callable[[], None]:
    """Answer scrapes in a thread with what *read* returns, until what this returns is called."""
    server, thread = start_http_server(port, host, _registry(read))

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
