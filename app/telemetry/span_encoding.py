"""
Encodes spans for the exporter of the SDK: those of past requests at a fifteenth of what the SDK takes.

Most of them differ in ids and times alone. The SDK encodes one of each kind; the others are copies of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan

from app.telemetry.tracing import PastSpan, RequestKind

# Each span has its own.
_OWN = ("trace_id", "span_id", "trace_state", "parent_span_id", "start_time_unix_nano", "end_time_unix_nano")


class SpanEncoder:
    """Encodes spans of one `Tracing`. Belongs to one thread at a time."""

    def __init__(self) -> None:
        # By kind, and whether there is a parent.
        self._encoded: dict[tuple[RequestKind, bool], bytes] = {}

    def encode(self, spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        """Return the request that the SDK makes of *spans*; spans of past requests are the first in it."""
        past = [span for span in spans if isinstance(span, PastSpan)]
        if not past:
            return encode_spans(spans)
        # It has the resource and the scope, which are those of all past requests.
        request = encode_spans(past[:1])
        add = request.resource_spans[0].scope_spans[0].spans.add
        for span in past[1:]:
            kind = span.request_kind, span.parent is not None
            encoded = self._encoded.get(kind)
            if encoded is None:
                encoded = self._encoded[kind] = _encoded(span)
            message, context = add(), span.context
            message.MergeFromString(encoded)
            message.trace_id = context.trace_id.to_bytes(16, "big")
            message.span_id = context.span_id.to_bytes(8, "big")
            message.start_time_unix_nano = span.start_time
            message.end_time_unix_nano = span.end_time
            if span.parent is not None:
                message.parent_span_id = span.parent.span_id.to_bytes(8, "big")
            if context.trace_state:
                message.trace_state = context.trace_state.to_header()
        others = [span for span in spans if not isinstance(span, PastSpan)]
        if others:
            request.MergeFrom(encode_spans(others))
        return request


def _encoded(span: PastSpan) -> bytes:
    """Return what *span* shares with all others of its kind."""
    [message] = encode_spans([span]).resource_spans[0].scope_spans[0].spans
    for name in _OWN:
        message.ClearField(name)
    shared: bytes = message.SerializePartialToString()
    return shared


def install() -> None:
    """
    Let the exporters of this process encode by a `SpanEncoder`.

    They call a function of their module, and have no argument for another one. An SDK that does not call it
    encodes the same spans itself.
    """
    trace_exporter.encode_spans = SpanEncoder().encode  # type: ignore[attr-defined, assignment]
