"""The bridge with a span for each recorded request. Without tracing, granian serves the bridge itself."""

from __future__ import annotations

from random import getrandbits
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from app.concurrency.origins import trace_id
from app.domain.origin import MAX_BAGGAGE, MAX_TRACESTATE, Parent, Trace, passed_on, read_traceparent
from app.settings.tracing import LOW_BITS, Sampling
from app.telemetry.tracing import Attributes, Tracing, fail
from app.web.client import is_trusted, peer_address
from app.web.rsgi import RsgiApplication
from app.web.scope import Noted, RsgiScope
from app.web.watched import WatchedProtocol

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REDIRECT = "/{slug}"
# The connection ended before there was an answer.
_NO_ANSWER = "no_answer"


class TracedApplication(RsgiApplication):
    """
    What granian serves with tracing on.

    The trace of a caller is joined only if a trusted proxy sent its headers; otherwise any client could
    choose ids, and which requests are recorded.

    A request that is not recorded costs its id, two readings of the clock and this class's view of the
    protocol. It gets a span afterwards if it failed or took long.

    Behind a front, that has decided, and the span is the one that it has begun: what it answers itself has
    its span by `app.web.front_records`.

    Args:
        sampling: which requests are recorded.
        slow_s: from this time on, a request is slow.
        server: where clients reach the gateway, by the names of attributes.
    """

    def __init__(
        self, *args: Any, sampling: Sampling, slow_s: float, server: Attributes, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sampling = sampling
        self._bound = sampling.bound
        self._slow_s = slow_s
        self._server = server
        self._tracing: Tracing
        # Of the bridge, or of what extends it as well. Looked up once: `super` costs more than this.
        self._answered = super().__rsgi__

    async def _open(self) -> None:
        await super()._open()
        tracing = self._services.tracing
        if tracing is None:
            raise TypeError("the services of a traced application have no tracing")
        self._tracing = tracing

    async def __rsgi__(self, scope: RsgiScope, protocol: Any) -> None:
        """Answer one HTTP request."""
        parent = None
        if self._trusted and is_trusted(peer_address(scope.client), self._trusted):
            parent = _parent(scope.headers)
        watched = WatchedProtocol(protocol)
        noted: Noted | None = scope.noted if self.is_fronted else None
        if noted is not None:
            trace, is_recorded = noted.trace_id, noted.is_recorded
        elif parent is None:
            trace = getrandbits(128) or 1
            # Written out: a call would cost a tenth of a redirect from memory.
            is_recorded = trace & LOW_BITS < self._bound
        else:
            trace = parent.trace_id
            is_recorded = self._sampling.takes(trace, parent.is_sampled)
        if is_recorded:
            await self._record(scope, watched, _trace(scope.headers, trace, parent), noted)
            return
        token = trace_id.set(trace)
        began = monotonic() if noted is None else noted.began
        try:
            await self._answered(scope, watched)
        finally:
            trace_id.reset(token)
            took_s = monotonic() - began
            status = watched.status
            if took_s >= self._slow_s or status >= 500 or status == 0:
                self._record_late(scope, watched, _trace(scope.headers, trace, parent), noted, took_s)

    async def _record(
        self, scope: RsgiScope, watched: WatchedProtocol, trace: Trace, noted: Noted | None
    ) -> None:
        name, attributes = self._described(scope, noted)
        span_id, waited_s = (0, 0.0) if noted is None else (noted.span_id, monotonic() - noted.began)
        with self._tracing.request(name, trace, attributes, span_id=span_id, waited_s=waited_s) as span:
            await self._answered(scope, watched)
            span.set_attributes(_attributes(watched.status))
            error = _error(watched.status)
            if error is not None:
                fail(span, error)

    def _record_late(
        self, scope: RsgiScope, watched: WatchedProtocol, trace: Trace, noted: Noted | None, took_s: float
    ) -> None:
        name, attributes = self._described(scope, noted)
        attributes = {**attributes, **_attributes(watched.status)}
        self._tracing.late_request(name, trace, attributes, took_s=took_s, error=_error(watched.status))

    def _described(self, scope: RsgiScope, noted: Noted | None) -> tuple[str, Attributes]:
        """Return the name and attributes of a request: its route, never what it was filled in with."""
        method = scope.method if scope.method in _METHODS else "_OTHER"
        route = self._template(scope)
        attributes = {"http.request.method": method, "network.protocol.version": scope.http_version}
        described = {**attributes, **self._server, "url.path": route or "REDACTED"}
        verb = "HTTP" if method == "_OTHER" else method
        if route is None:
            return verb, described
        if route == _REDIRECT:
            # Until it is looked up; see `app.bootstrap.tracing`.
            is_missed = noted is not None and noted.is_missed
            described = {**described, "hopgate.l1": "miss" if is_missed else "hit"}
        return f"{verb} {route}", {**described, "http.route": route}


def server_attributes(public_url: str) -> Attributes:
    """Return what spans say of the server: where clients reach it, whatever a Host header claims."""
    url = urlsplit(public_url)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    return {"url.scheme": url.scheme, "server.address": url.hostname or "", "server.port": port}


def _attributes(status: int) -> Attributes:
    return {"http.response.status_code": status} if status else {}


def _error(status: int) -> str | None:
    """Return the value of `error.type`: only faults of the server are errors of its span."""
    if status == 0:
        return _NO_ANSWER
    return str(status) if status >= 500 else None


def _parent(headers: Any) -> Parent | None:
    """Return the span that a trusted proxy names as the caller."""
    values = headers.get_all("traceparent")
    return read_traceparent(values[0]) if len(values) == 1 else None


def _trace(headers: Any, trace: int, parent: Parent | None) -> Trace:
    """Return the trace of a request; without a parent, its other headers say nothing."""
    if parent is None:
        return Trace(trace)
    tracestate = _joined(headers, "tracestate", MAX_TRACESTATE)
    return Trace(trace, parent, tracestate, _joined(headers, "baggage", MAX_BAGGAGE))


def _joined(headers: Any, name: str, limit: int) -> str:
    return passed_on(",".join(headers.get_all(name)), limit) if name in headers else ""
