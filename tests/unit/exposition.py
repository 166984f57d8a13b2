"""Reads what Prometheus reads: the page of metrics of a gateway has twelve thousand samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


def samples(text: str, only: str = "") -> Iterator[Sample]:
    """
    Give each sample of a page, or those of one name.

    The parser of `prometheus_client` takes the time of hundreds of redirects for a page, and tests read
    pages again and again.
    """
    for line in text.splitlines():
        if not line or line.startswith("#") or not line.startswith(only):
            continue
        found = _LINE.fullmatch(line)
        assert found is not None, line
        name, labels, value = found.groups()
        if only in ("", name):
            yield Sample(name, _read(labels or ""), float(value))


def _read(labels: str) -> dict[str, str]:
    return {name: _ESCAPED.sub(_plain, value) for name, value in _LABEL.findall(labels)}


def _plain(escaped: re.Match[str]) -> str:
    return "\n" if escaped[1] == "n" else escaped[1]


Page = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: bytes) -> Page:
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for one in samples(text.decode())}


def as_prometheus_reads(text: bytes) -> Page:
    """Return what `parsed` does, by the parser of `prometheus_client`."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
