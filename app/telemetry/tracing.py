"""
Spans of this process, by the OpenTelemetry SDK, which is imported only where this module is.

Whether a request is recorded is decided before it has a span. One that is not keeps its id and its
time; if it fails or is slow, it gets its span afterwards. All other work is recorded if the requests are that
it is done for (see `app.concurrency.origins`).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from app import __version__
from app.concurrency.origins import on_behalf_of, origins, trace_id
from app.domain.origin import Origin, Parent, Trace

# Work that begins later than this after its request is a trace of its own, with a link to the request.
FRESH_S = 60.0
# Spans made afterwards: while everything fails, each of them would cost more than its request.
_MAX_LATE_PER_S = 50
# Errors of requests that are not recorded, until their late spans are made: those under way have one each.
_MAX_HELD = 256
# The innermost frames: those that tell errors apart.
_MAX_FRAMES = 24

Attributes = Mapping[str, Any]
_EXCEPTION = "exception"
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET, _FAILED = Status(), Status(StatusCode.ERROR)

# The span of the request under way, if it is recorded.
_request: ContextVar[Span | None] = ContextVar("request_span", default=None)


@dataclass(frozen=True, slots=True, eq=False)
class RequestKind:
    """What spans of past requests share; `attributes` are kept, not copied. Equal by identity."""

    name: str
    attributes: Attributes
    has_failed: bool


class PastSpan(ReadableSpan):
    """The span of a past request: `app.telemetry.span_encoding` encodes what it shares with others once."""

    request_kind: RequestKind
    context: SpanContext
    start_time: int
    end_time: int


class _Ids(RandomIdGenerator):
    """Random ids, unless `next_trace` (for a root span) and `next_span` say which the next span has."""

    next_trace = 0
    next_span = 0

    def generate_trace_id(self) -> int:
        given, self.next_trace = self.next_trace, 0
        return given or super().generate_trace_id()

    def generate_span_id(self) -> int:
        given, self.next_span = self.next_span, 0
        return given or super().generate_span_id()


class Tracing:
    """
    Makes the spans of one process. Belongs to one event loop.

    Args:
        processor: gets every span that has ended.
        resource: attributes of the process: its service and instance.
        wall: unix time in seconds.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        processor: SpanProcessor,
        resource: Attributes,
        *,
        wall: Any = time.time,
        monotonic: Any = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ids = _Ids()
        # The decision has been made when a span is asked for.
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(resource),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("hopgate", __version__)
        self._processor = processor
        self._resource = provider.resource
        self._scope = InstrumentationScope("hopgate", __version__)
        self._second, self._late = 0, 0
        self._held: dict[int, Attributes] = {}
        self.omitted = 0

    def new_trace_id(self) -> int:
        """Return the id of a new trace."""
        return self._ids.generate_trace_id()

    @contextmanager
    def request(
        self,
        name: str,
        trace: Trace,
        attributes: Attributes,
        *,
        kind: SpanKind = SpanKind.SERVER,
        span_id: int = 0,
        waited_s: float = 0.0,
    ) -> Iterator[Span]:
        """
        Record the body as the request of *trace*; the work that it causes is recorded too.

        Args:
            span_id: of its span; 0: a new one.
            waited_s: for how long it has been under way.
        """
        at = self._wall() - waited_s
        self._ids.next_span = span_id
        span = self._start(name, kind, attributes, trace, at)
        id_token, token = trace_id.set(trace.id), _request.set(span)
        span_id = span.get_span_context().span_id
        origin = Origin(trace.id, span_id, at, trace.tracestate, trace.baggage)
        try:
            with on_behalf_of((origin,)), _ending(span):
                yield span
        finally:
            _request.reset(token)
            trace_id.reset(id_token)

    def late_request(
        self, name: str, trace: Trace, attributes: Attributes, *, took_s: float, error: str | None
    ) -> None:
        """Record a request that was not to be recorded, now that it took *took_s*, or failed by *error*."""
        event = self._held.pop(trace.id, None)
        if not self._has_room():
            self.omitted += 1
            return
        self._late += 1
        now = self._wall()
        span = self._start(name, SpanKind.SERVER, attributes, trace, now - took_s)
        if event is not None:
            span.add_event(_EXCEPTION, event)
        if error is not None:
            fail(span, error)
        span.end(_ns(now))

    def past_request(
        self,
        kind: RequestKind,
        ids: tuple[int, int, int, str],
        *,
        began: float,
        took_s: float,
        is_late: bool,
    ) -> None:
        """
        Record a request that has ended elsewhere, at a tenth of what a span costs that is started and ended.

        Args:
            ids: its trace, span and parent (0: none), and the trace state of that.
            began: unix time in seconds.
            is_late: it was not to be recorded.
        """
        if is_late:
            if not self._has_room():
                self.omitted += 1
                return
            self._late += 1
        trace_id, span_id, parent_id, tracestate = ids
        state = TraceState.from_header([tracestate]) if tracestate else None
        parent = SpanContext(trace_id, parent_id, True, _SAMPLED, state) if parent_id else None  # noqa: FBT003
        start = _ns(began)
        span = PastSpan(
            kind.name,
            SpanContext(trace_id, span_id, False, _SAMPLED, state),  # noqa: FBT003
            parent,
            self._resource,
            kind.attributes,
            kind=SpanKind.SERVER,
            status=_FAILED if kind.has_failed else _UNSET,
            start_time=start,
            end_time=start + _ns(took_s),
            instrumentation_scope=self._scope,
        )
        span.request_kind = kind
        self._processor.on_end(span)

    def note_error(self, error: BaseException) -> None:
        """Record *error* on the request under way: on its span, or on the one that it gets afterwards."""
        span = _request.get()
        if span is not None:
            span.add_event(_EXCEPTION, _described(error))
        elif (trace := trace_id.get()) and self._has_room():
            if len(self._held) >= _MAX_HELD:
                del self._held[next(iter(self._held))]
            self._held[trace] = _described(error)

    @contextmanager
    def work(self, name: str, kind: SpanKind, attributes: Attributes) -> Iterator[tuple[Span, Origin] | None]:
        """
        Record the body as work for its origins; gives its span, and the origin of what it causes.

        None if there are no origins: nothing is recorded. Several, or one that is older than `FRESH_S`,
        become links of a new trace.
        """
        whose = origins()
        if not whose:
            yield None
            return
        now = self._wall()
        first = whose[0]
        if len(whose) == 1 and now - first.at < FRESH_S:
            parent = Parent(first.trace_id, first.span_id, is_sampled=True)
            trace = Trace(first.trace_id, parent, first.tracestate)
            span = self._start(name, kind, attributes, trace, now)
            context = span.get_span_context()
            origin = Origin(first.trace_id, context.span_id, first.at, first.tracestate, first.baggage)
        else:
            links = [Link(_context(one.trace_id, one.span_id, one.tracestate)) for one in whose]
            span = self._tracer.start_span(
                name, Context(), kind, dict(attributes), links=links, start_time=_ns(now)
            )
            context = span.get_span_context()
            origin = Origin(context.trace_id, context.span_id, now)
        with on_behalf_of((origin,)), _ending(span):
            yield span, origin

    def _has_room(self) -> bool:
        """Is there room for a late span in this second?"""
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._late = second, 0
        return self._late < _MAX_LATE_PER_S

    def _start(self, name: str, kind: SpanKind, attributes: Attributes, trace: Trace, at: float) -> Span:
        context = Context()
        if trace.parent is None:
            self._ids.next_trace = trace.id
        else:
            remote = _context(trace.id, trace.parent.span_id, trace.tracestate)
            context = set_span_in_context(NonRecordingSpan(remote), context)
        return self._tracer.start_span(name, context, kind, dict(attributes), start_time=_ns(at))


def note_on_request(name: str, value: str) -> None:
    """Set the attribute *name* of the request under way, if it is recorded."""
    span = _request.get()
    if span is not None:
        span.set_attribute(name, value)


def fail(span: Span, error: str) -> None:
    """Mark *span* as failed by *error*: the name of a class or a status, never a message."""
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


@contextmanager
def _ending(span: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # The message may quote a URL or what a client sent.
        fail(span, type(error).__name__)
        if isinstance(error, Exception):
            span.add_event(_EXCEPTION, _described(error))
        raise
    finally:
        span.end()


def _described(error: BaseException) -> Attributes:
    """
    Return the attributes of the event `exception`, by the semantic conventions.

    Its message is left out: it may quote a URL or what a client sent. Lines of the program are as well: to
    read its files would hold up the event loop.
    """
    kind = type(error)
    frames = list(traceback.walk_tb(error.__traceback__))[-_MAX_FRAMES:]
    stack = [
        f'File "{at.f_code.co_filename}", line {line}, in {at.f_code.co_qualname}' for at, line in frames
    ]
    return {
        "exception.type": f"{kind.__module__}.{kind.__qualname__}",
        "exception.stacktrace": "\n".join(stack),
    }


def _context(trace: int, span: int, tracestate: str) -> SpanContext:
    state = TraceState.from_header([tracestate]) if tracestate else None
    return SpanContext(
        trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED), trace_state=state
    )


def _ns(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
