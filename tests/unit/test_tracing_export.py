"""What an exporter that fails costs."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from app.domain.origin import Trace
from app.telemetry.span_export import BoundedProcessor
from app.telemetry.tracing import Tracing


class Refusing(SpanExporter):
    def __init__(self, result: SpanExportResult | Exception = SpanExportResult.FAILURE) -> None:
        self.result = result

    def export(self, spans):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self) -> None: ...


class Silent(SpanExporter):
    """Keeps the exporting thread until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def export(self, spans):
        self.released.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None: ...


async def eventually(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, ConnectionError("http://user:geheim@c/")])
async def test_refused_spans_are_counted_and_logged_once(caplog, result):
    exporter = Refusing(result)
    processor = BoundedProcessor(exporter, max_queued=100, schedule_s=0.01)
    tracing = Tracing(processor, {})

    for n in range(1, 4):
        _request(tracing)
        await eventually(lambda n=n: processor.dropped == n)
    exporter.result = SpanExportResult.SUCCESS
    _request(tracing)
    await eventually(lambda: processor.exported == 1)
    await processor.aclose()

    failing, again = [record.getMessage() for record in caplog.records if "app." in record.name]
    assert failing.startswith("traces are not exported: ")
    assert again == "traces are exported again: 3 spans were dropped"
    assert "geheim" not in caplog.text


async def test_silent_collector_fills_a_bounded_queue(caplog):
    exporter = Silent()
    processor = BoundedProcessor(exporter, max_queued=10, schedule_s=0.01)
    tracing = Tracing(processor, {})

    _request(tracing)
    await eventually(lambda: processor._exporter.taken == 1)
    for _ in range(25):
        _request(tracing)
    assert processor.dropped == 15

    began = monotonic()
    await processor.aclose(within_s=0.2)
    exporter.released.set()

    assert monotonic() - began < 10
    assert "spans are dropped at the stop" in caplog.text


def _request(tracing: Tracing) -> None:
    with tracing.request("GET /", Trace(tracing.new_trace_id()), {}):
        pass
