"""The tracing of one process: opened after the fork, as its exporter has a thread."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from app.domain.errors import HopgateError
from app.domain.link import Slug
from app.domain.origin import Trace
from app.ports import EventBus, LinkCache, LinkReplica, Store
from app.service.resolver import Resolver
from app.settings import Settings
from app.settings.tracing import Sampling, TracingSettings, tracing_settings
from app.telemetry.metrics import Source
from app.telemetry.sources import span_samples

if TYPE_CHECKING:
    from app.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Traces:
    """The tracing of a process, and its metrics; off without `tracing`."""

    tracing: Tracing | None = None
    sources: Sequence[Source] = ()
    is_embedded: bool = False
    sampling: Sampling | None = None

    @contextmanager
    def command(self, name: str) -> Iterator[None]:
        """Record the body as the command *name*, if it is among those to be recorded."""
        trace_id = 0 if self.tracing is None else self.tracing.new_trace_id()
        if self.tracing is None or self.sampling is None or not self.sampling.takes(trace_id, None):
            yield
            return
        from opentelemetry.trace import SpanKind

        with self.tracing.request(f"hopgate {name}", Trace(trace_id), {}, kind=SpanKind.INTERNAL):
            yield

    def noting(self, on_error: Callable[[Exception], None]) -> Callable[[Exception], None]:
        """Return *on_error*, which also records the error on the span of its request if tracing is on."""
        tracing = self.tracing
        if tracing is None:
            return on_error

        def noted(error: Exception) -> None:
            on_error(error)
            tracing.note_error(error)

        return noted

    def store(self, store: Store) -> Store:
        """Return *store*, traced if tracing is on."""
        if self.tracing is None:
            return store
        from app.telemetry.traced import traced_store

        return traced_store(store, self.tracing, "sqlite" if self.is_embedded else "postgresql")

    def replica(self, replica: LinkReplica | None) -> LinkReplica | None:
        """Return *replica*, traced if tracing is on."""
        if self.tracing is None or replica is None:
            return replica
        from app.telemetry.traced import traced_replica

        return traced_replica(replica, self.tracing)

    def resolver(self, resolver: type[Resolver[Any]]) -> type[Resolver[Any]]:
        """Return the class *resolver*, whose look-ups requests note if tracing is on."""
        if self.tracing is None:
            return resolver
        from app.telemetry.tracing import note_on_request

        class Noted(resolver):  # type: ignore[misc, valid-type]
            async def resolve(self, slug: Slug) -> Any:
                note_on_request("hopgate.l1", "miss")
                return await super().resolve(slug)

        return Noted

    def cache(self, cache: LinkCache) -> LinkCache:
        """Return *cache*, traced if tracing is on."""
        if self.tracing is None:
            return cache
        from app.telemetry.traced import traced_cache

        return traced_cache(cache, self.tracing, "memory" if self.is_embedded else "redis")

    def bus(self, bus: EventBus) -> EventBus:
        """Return *bus*, traced if tracing is on."""
        if self.tracing is None:
            return bus
        from app.telemetry.traced import traced_bus

        return traced_bus(bus, self.tracing, "memory" if self.is_embedded else "rabbitmq")


class NotInstalled(HopgateError):
    """The environment asks for traces or reports of errors, and what sends them is not installed."""


def wanted() -> TracingSettings | None:
    """
    Return how to trace; None if tracing is off.

    Raises:
        SettingsError: the variables of OpenTelemetry ask for what Hopgate cannot do.
        NotInstalled: the extra is missing. It is no reason not to serve.
    """
    asked = tracing_settings()
    if asked is None:
        return None
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace
    except ImportError:
        raise NotInstalled(
            f"no traces go to {asked.endpoint}, as opentelemetry is not installed:"
            " run `make otel`, or pip install 'hopgate[otel]'"
        ) from None
    del opentelemetry
    return asked


def installed() -> TracingSettings | None:
    """Return how to trace; None if tracing is off, or cannot be done: the command that started says so."""
    try:
        return wanted()
    except NotInstalled:
        return None


@asynccontextmanager
async def open_traces(settings: Settings, service: str) -> AsyncIterator[Traces]:
    """
    The tracing of this process: off unless the variables of OpenTelemetry ask for it.

    Args:
        service: the name of the service, unless OTEL_SERVICE_NAME has another.
    """
    asked = installed()
    if asked is None:
        yield Traces()
        return
    from app import __version__
    from app.telemetry import span_export
    from app.telemetry.tracing import Tracing

    processor = span_export.otlp(asked.max_queued)
    resource = {
        "service.name": asked.service_name or service,
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    tracing = Tracing(processor, resource)
    try:
        yield Traces(tracing, [partial(span_samples, processor, tracing)], settings.embedded, asked.sampling)
    finally:
        await processor.aclose()
