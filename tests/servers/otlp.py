"""A collector of traces: takes OTLP over HTTP and keeps every span."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


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


class Collector:
    """
    Runs in this process, in the body of a `with`.

    `answers`: the status that it answers with; None keeps each request waiting until the end. `delay_s`: how
    long an answer takes.
    """

    def __init__(self, *, answers: int | None = 200, delay_s: float = 0.0) -> None:
        self.answers = answers
        self.delay_s = delay_s
        self.asked = 0
        self._lock = threading.Lock()
        self._spans: list[Received] = []
        self._bodies: list[bytes] = []
        self._ends = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collector._take(body, self.headers.get("content-encoding"))
                if status is None:
                    return
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_header("content-length", str(len(answer)))
                # An exporter does not wait for an answer that is late.
                with suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

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

    def _take(self, body: bytes, encoding: str | None) -> int | None:
        with self._lock:
            self.asked += 1
        if self.answers is None or self.delay_s:
            self._ends.wait(self.delay_s if self.answers else None)
        if self.answers is None:
            return None
        if self.answers != 200:
            return self.answers
        plain = gzip.decompress(body) if encoding == "gzip" else body
        request = ExportTraceServiceRequest()
        request.ParseFromString(plain)
        found = [
            _received(span, {one.key: _value(one.value) for one in of.resource.attributes})
            for of in request.resource_spans
            for scope in of.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._bodies.append(plain)
            self._spans += found
        return 200

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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
