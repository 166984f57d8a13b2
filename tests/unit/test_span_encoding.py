"""Spans as the exporter sends them: those of the SDK's own encoding, in whatever way they are encoded."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.trace import SpanKind

from app.domain.origin import Trace
from app.telemetry import span_export
from app.telemetry.span_encoding import SpanEncoder
from app.telemetry.tracing import PastSpan, RequestKind, Tracing
from app.web.traced import server_attributes
from tests.servers.otlp import Collector
from tests.unit.test_tracing_export import eventually

HIT = RequestKind(
    "GET /{slug}",
    {
        **server_attributes("http://hop.example"),
        "http.route": "/{slug}",
        "http.response.status_code": 302,
        "a flag": True,
        "a share": 0.5,
    },
    has_failed=False,
)
FAILED = RequestKind("HEAD /{slug}", {"error.type": "503"}, has_failed=True)


def request(tracing: Tracing, number: int, kind: RequestKind = HIT, parent: int = 0, state: str = "") -> None:
    ids = 2**127 + number, number, parent, state
    tracing.past_request(kind, ids, began=1_700_000_000.5 + number, took_s=0.25, is_late=False)


def encoded(request: Any) -> Counter[tuple[bytes, bytes, bytes]]:
    """Return each span of *request* with its resource and its scope."""
    return Counter(
        (of.resource.SerializeToString(), scope.scope.SerializeToString(), span.SerializeToString())
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    )


def test_past_requests_are_encoded_as_the_sdk_does(spans):
    kinds = product([HIT, FAILED], [0, 0xAA], ["", "a=1,b=2"])
    for number, case in enumerate([*kinds] * 3, start=1):
        request(spans.tracing, number, *case)
    with spans.tracing.request("POST /api/v1/links", Trace(7), {"http.route": "/api/v1/links"}) as span:
        span.add_event("exception", {"exception.type": "ValueError"})
        with spans.tracing.work("INSERT links", SpanKind.CLIENT, {"db.system.name": "sqlite"}):
            pass
    encoder = SpanEncoder()

    for some in (spans.all, spans.all[3:], spans.all[:1], spans.all[-2:], ()):
        assert encoded(encoder.encode(some)) == encoded(encode_spans(some))
    assert sum(isinstance(span, PastSpan) for span in spans.all) == len(spans.all) - 2 == 24


@pytest.fixture
def restored(monkeypatch):
    """Leave the module of the exporter as it was."""
    monkeypatch.setattr(trace_exporter, "encode_spans", encode_spans)


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_exporter_sends_what_is_encoded_here(restored, monkeypatch, compression):
    """Through its own transport; a release of the SDK that encodes elsewhere leaves it unused."""
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        processor = span_export.otlp(2048)
        encoder = vars(trace_exporter)["encode_spans"].__self__
        tracing = Tracing(processor, {"service.name": "tests"})
        for number in range(1, 41):
            request(tracing, number, parent=0xAA)
        await processor.aclose()
        await eventually(lambda: len(collector.spans()) == 40)

        assert processor.exported == 40
        assert list(encoder._encoded) == [(HIT, True)]
        assert {span.span for span in collector.spans()} == {f"{number:016x}" for number in range(1, 41)}
        assert {(span.service, span.parent, span.name) for span in collector.spans()} == {
            ("tests", f"{0xAA:016x}", "GET /{slug}")
        }
