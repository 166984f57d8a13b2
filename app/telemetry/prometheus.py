"""Samples in the text format of Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import assert_never

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from app.telemetry.families import Counter, Family, Gauge, Histogram, declared
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


def read(text: str) -> Samples:
    """
    Return the samples in *text*, which `text` may have made in another process.

    What this version does not declare is left out, and so are histograms with other bounds.

    Raises:
        ValueError: it is not in that format.
    """
    samples: Samples = {}
    for metric in text_string_to_metric_families(text):
        family = declared().get(metric.name)
        match family:
            case None:
                pass
            case Histogram():
                samples.update(_histograms(family, metric))
            case Counter() | Gauge():
                name = f"{family.name}_total" if isinstance(family, Counter) else family.name
                for sample in metric.samples:
                    labels = _labels(family, sample.labels)
                    if sample.name == name and labels is not None:
                        samples[family.of(*labels)] = [_finite(sample.value)]
            case _:
                assert_never(family)
    return samples


def _histograms(family: Histogram, metric: Metric) -> Samples:
    sums: dict[tuple[str, ...], float] = {}
    buckets: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for sample in metric.samples:
        labels = _labels(family, {name: value for name, value in sample.labels.items() if name != "le"})
        if labels is None:
            continue
        if sample.name == f"{family.name}_sum":
            sums[labels] = _finite(sample.value)
        elif sample.name == f"{family.name}_bucket" and "le" in sample.labels:
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), _finite(sample.value)))
    samples: Samples = {}
    for labels, found in buckets.items():
        bounds = [bound for bound, _ in found]
        if labels in sums and bounds == [*family.bounds_of(labels), math.inf]:
            up_to = [0.0, *(count for _, count in found)]
            counts = [after - before for before, after in pairwise(up_to)]
            samples[family.of(*labels)] = [*counts, sums[labels]]
    return samples


def _labels(family: Family, found: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the values of the labels of *family*; None if the series has others."""
    return tuple(found[name] for name in family.labels) if set(found) == set(family.labels) else None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        message = "a value is not finite"
        raise ValueError(message)
    return value
