"""A collector of traces: takes OTLP over HTTP and keeps every span."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.servers.receiver import Answer, Receiver


@dataclass(frozen=True)
class Received:
    """One span as it arrived; ids are hexadecimal, an empty `parent` is none."""

    name: str
    service: str
    instance: str
    trace: str
    span: str
    parent: str
    kind: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    is_error: bool
    started_ns: int
    ended_ns: int
    state: str


class Collector(Receiver):
    """
    `answers`: the status that it answers with; None keeps each request waiting until the end. `delay_s`: how
    long an answer takes.
    """

    def __init__(self, *, answers: int | None = 200, delay_s: float = 0.0) -> None:
        super().__init__()
        self.answers = answers
        self.delay_s = delay_s
        self.asked = 0
        self._spans: list[Received] = []
        self._bodies: list[bytes] = []
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """Variables that send every span here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    @property
    def text(self) -> bytes:
        """Everything that arrived, as it was on the wire."""
        with self._lock:
            return b"\n".join(self._bodies)

    def spans(self, wanted: Callable[[Received], bool] = lambda _: True) -> list[Received]:
        """Return the spans so far that are *wanted*."""
        with self._lock:
            return [span for span in self._spans if wanted(span)]

    def trace(self, trace: str) -> list[Received]:
        return self.spans(lambda span: span.trace == trace)

    def _take(self, path: str, headers: str, body: bytes) -> Answer | None:
        with self._lock:
            self.asked += 1
        if self.answers is None or self.delay_s:
            self._ends.wait(self.delay_s if self.answers else None)
        if self.answers is None:
            return None
        if self.answers == 200:
            self._keep(body)
        return Answer(
            self.answers, "application/x-protobuf", ExportTraceServiceResponse().SerializeToString()
        )

    def _keep(self, body: bytes) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        found = [
            _received(span, {one.key: _value(one.value) for one in of.resource.attributes})
            for of in request.resource_spans
            for scope in of.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._bodies.append(body)
            self._spans += found


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        service=resource["service.name"],
        instance=resource.get("service.instance.id", ""),
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        attributes={one.key: _value(one.value) for one in span.attributes},
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        is_error=span.status.code == 2,
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        state=span.trace_state,
    )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
