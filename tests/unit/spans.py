"""What tests of tracing share: a caller, its trace, and the spans that end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.domain.origin import Origin
from app.settings.tracing import Sampling
from app.telemetry.tracing import Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"
ORIGIN = Origin(int(TRACE, 16), 0xF067AA0BA902B7, at=1_000.0)
PROXY = "10.0.0.7:4711"
NEVER, ALWAYS = Sampling(0.0, follows_parent=True), Sampling(1.0, follows_parent=True)


class Spans:
    """The finished spans of a `Tracing`, by name."""

    def __init__(self, **options) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(SimpleSpanProcessor(self._exporter), {"service.name": "tests"}, **options)

    @property
    def all(self) -> Sequence[Any]:
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.all]
