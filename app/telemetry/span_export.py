"""
Exports spans in the background: OTLP over HTTP, from a bounded queue, by a thread of the SDK.

A collector that refuses, is silent or slow costs no request anything: what does not fit into the
queue, or is not taken, is dropped and counted, and the log says so once for each outage.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from app.telemetry import span_encoding

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

log = logging.getLogger(__name__)

_FLUSH_S = 3.0
# Loggers of the SDK and its transport: they report each attempt, with the URL.
_NOISY = ("opentelemetry", "urllib3")


class CountedExporter(SpanExporter):
    """
    Counts what *exporter* delivers and what it does not. Only the exporting thread calls `export`.

    `taken` are spans that have left the queue, whatever became of them.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False
        self.taken = 0
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export *spans*; a failure is a count and not an error."""
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - a supervisor: whatever the transport raises, the thread goes on
            result, reason = SpanExportResult.FAILURE, type(error).__name__
        else:
            reason = "the collector does not take them"
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self._is_failing:
                log.warning("traces are exported again: %d spans were dropped", self.failed)
        else:
            self.failed += len(spans)
            if not self._is_failing:
                log.warning("traces are not exported: %s; spans are dropped until they are", reason)
        self._is_failing = result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Give up the export under way."""
        self._exporter.shutdown()


class BoundedProcessor(SpanProcessor):
    """
    The SDK's batches behind a bound of its own, which drops the newest spans and counts them.

    Args:
        max_queued: spans that wait for their export.
        schedule_s: the longest that a span waits for others.
    """

    def __init__(self, exporter: SpanExporter, *, max_queued: int, schedule_s: float | None = None) -> None:
        self._exporter = CountedExporter(exporter)
        # The bound holds here, so that the queue of the SDK is never full: it would drop silently.
        self._batches = BatchSpanProcessor(
            self._exporter,
            max_queue_size=2 * max_queued,
            max_export_batch_size=min(512, max_queued),
            schedule_delay_millis=None if schedule_s is None else schedule_s * 1000,
        )
        self._max_queued = max_queued
        self._accepted = 0
        self._refused = 0

    @property
    def exported(self) -> int:
        """Spans that the collector took."""
        return self._exporter.exported

    @property
    def dropped(self) -> int:
        """Spans that did not fit into the queue, or that the collector did not take."""
        return self._refused + self._exporter.failed

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: only ended spans are exported."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue *span*, or drop it."""
        if self._accepted - self._exporter.taken >= self._max_queued:
            self._refused += 1
            return
        self._accepted += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Export what is queued, however long that takes; see `flush`."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what is queued."""
        return self._batches.force_flush(timeout_millis)

    async def aclose(self, *, within_s: float = _FLUSH_S) -> None:
        """Export what is queued and end, within *within_s*: what is left then is dropped."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            self._batches.shutdown()  # type: ignore[no-untyped-call]
            # The loop may have been closed since.
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        # A daemon: a collector that is silent must not keep the process.
        threading.Thread(target=shut_down, name="trace flush", daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                await done.wait()
        except TimeoutError:
            log.warning("traces: %d spans are dropped at the stop", self._accepted - self._exporter.exported)


def otlp(max_queued: int) -> BoundedProcessor:
    """Return a processor that queues *max_queued* spans and exports as the variables of OpenTelemetry say."""
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    span_encoding.install()
    return BoundedProcessor(OTLPSpanExporter(), max_queued=max_queued)
