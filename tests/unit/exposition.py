"""Reads what Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def parsed(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
