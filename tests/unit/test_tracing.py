"""Which requests are recorded, what their spans say, and what an exporter that fails costs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from time import monotonic
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.concurrency.batches import Batches
from app.concurrency.origins import on_behalf_of, origins, trace_id
from app.domain.errors import SettingsError, Unavailable
from app.domain.events import Event, LinkChanged, LinksMissed, WorkQueue
from app.domain.link import Slug
from app.domain.origin import Origin, Parent, Trace, read_traceparent
from app.settings.tracing import Sampling, tracing_settings
from app.telemetry.span_export import BoundedProcessor
from app.telemetry.traced import traced_bus, traced_cache, traced_replica, traced_store
from app.telemetry.tracing import FRESH_S, Tracing
from app.web.traced import TracedApplication, server_attributes
from app.wire import decode_origin, encode_origin, origin_headers, read_origin
from tests.unit.whole_application import Application, Headers, Protocol, Scope

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


@pytest.fixture
def spans() -> Spans:
    return Spans()


class Traced(Application):
    """The whole application with tracing."""

    async def ask_with(
        self, path: str, *, client: str = PROXY, method: str = "GET", **headers: str
    ) -> Protocol:
        protocol, scope = Protocol(), Scope(method, path)
        scope.client = client
        scope.headers = Headers(scope.headers, **{name: [value] for name, value in headers.items()})
        await self._rsgi.__rsgi__(scope, protocol)
        return protocol


@pytest.fixture
def traced(application, spans):
    """Makes the application, with a trusted proxy, for a sampling."""

    async def make(sampling: Sampling, *, slow_s: float = 60.0, tracing: Tracing | None = None) -> Traced:
        services = replace(
            application.services,
            tracing=tracing or spans.tracing,
            trusted_proxies=(ip_network("10.0.0.0/8"),),
        )

        @asynccontextmanager
        async def opened():
            yield services

        server = server_attributes("https://hop.example/s")
        rsgi = TracedApplication(opened, sampling=sampling, slow_s=slow_s, server=server)
        await rsgi._open()
        return Traced(services, rsgi)

    return make


# --- traceparent -------------------------------------------------------------------------


def test_traceparent_of_a_later_version_is_read():
    expected = Parent(int(TRACE, 16), 0xF067AA0BA902B7, is_sampled=True)

    assert read_traceparent(CALLER) == expected
    assert read_traceparent(f"cc{CALLER[2:]}-what-comes") == expected
    assert read_traceparent(f"{CALLER[:-2]}00") == expected._replace(is_sampled=False)
    assert read_traceparent(f"{CALLER[:-2]}03") == expected


MALFORMED = [
    "",
    CALLER[:-1],
    f"{CALLER}0",
    f"{CALLER}-extra",
    f" {CALLER}",
    f"{CALLER}\n",
    CALLER.upper(),
    f"ff{CALLER[2:]}",
    f"0x{CALLER[2:]}",
    CALLER.replace(TRACE, "0" * 32),
    CALLER.replace("00f067aa0ba902b7", "0" * 16),
    CALLER.replace("-", "_"),
    f"cc{CALLER[2:]}.extra",
    f"00-{TRACE}-00f067aa0ba902b7-0g",
]


@pytest.mark.parametrize("value", MALFORMED)
async def test_malformed_traceparent_is_ignored(traced, spans, value):
    assert read_traceparent(value) is None

    await (await traced(ALWAYS)).ask_with("/healthz", traceparent=value, tracestate="a=1")

    [span] = spans.all
    assert span.parent is None
    assert span.context.trace_id != int(TRACE, 16)
    assert not span.context.trace_state


async def test_two_traceparents_are_none(traced, spans):
    application = await traced(ALWAYS)
    protocol, scope = Protocol(), Scope("GET", "/healthz")
    scope.client = PROXY
    scope.headers["traceparent"] = [CALLER, CALLER]

    await application._rsgi.__rsgi__(scope, protocol)

    [span] = spans.all
    assert span.parent is None


# --- requests ----------------------------------------------------------------------------


async def test_server_span_follows_a_trusted_proxy(traced, spans):
    application = await traced(NEVER)

    await application.ask_with("/nothing-here", traceparent=CALLER, tracestate="vendor=1")

    server = next(span for span in spans.all if span.kind.name == "SERVER")
    assert server.name == "GET /{slug}"
    assert (server.context.trace_id, server.parent.span_id) == (int(TRACE, 16), 0xF067AA0BA902B7)
    assert server.context.trace_state.to_header() == "vendor=1"
    # The services of this application were opened without tracing, so no look-up is noted.
    assert dict(server.attributes) == {
        "http.request.method": "GET",
        "http.route": "/{slug}",
        "http.response.status_code": 404,
        "network.protocol.version": "1.1",
        "url.scheme": "https",
        "url.path": "/{slug}",
        "server.address": "hop.example",
        "server.port": 443,
        "hopgate.l1": "hit",
    }


@pytest.mark.parametrize("client", ["198.51.100.7:54321", "[2001:db8::1]:5", "unix:"])
async def test_traceparent_of_an_untrusted_peer_is_ignored(traced, spans, client):
    """Also if the peer claims to come through the proxy."""
    application = await traced(ALWAYS)
    forged = {"x-forwarded-for": "10.0.0.7"}

    await application.ask_with("/healthz", client=client, traceparent=CALLER, tracestate="a=1", **forged)

    [span] = spans.all
    assert span.context.trace_id != int(TRACE, 16)
    assert span.parent is None
    assert not span.context.trace_state


async def test_caller_that_does_not_record_is_followed(traced, spans):
    await (await traced(ALWAYS)).ask_with("/healthz", traceparent=f"{CALLER[:-2]}00")

    assert spans.all == ()


async def test_unrecorded_request_makes_no_span(traced, spans):
    application = await traced(NEVER)

    assert (await application.ask_with("/healthz")).status == 200
    assert (await application.ask_with("/nothing")).status == 404

    assert spans.all == ()


async def test_unrecorded_request_that_is_slow_gets_one_root_span(traced, spans):
    await (await traced(NEVER, slow_s=0.0)).ask_with("/nothing?secret=1")

    [span] = spans.all
    assert (span.name, span.parent) == ("GET /{slug}", None)
    assert "error.type" not in span.attributes
    assert span.attributes["http.response.status_code"] == 404
    assert span.end_time >= span.start_time


async def test_unrecorded_request_that_fails_gets_one_root_span(traced, spans):
    application = await traced(NEVER)
    seen = []

    async def broken(*_, **__):
        seen.append(trace_id.get())
        raise RuntimeError("canary-of-the-message")

    application.services.redirects.answer = broken
    assert (await application.ask_with("/nothing")).status == 500

    [span] = spans.all
    assert [span.context.trace_id] == seen
    assert (span.attributes["error.type"], span.status.is_ok) == ("500", False)
    assert "canary" not in span.to_json()


async def test_late_spans_are_bounded(traced):
    """While everything fails, each would cost more than its request."""
    spans = Spans(monotonic=lambda: 1.0)
    application = await traced(NEVER, slow_s=0.0, tracing=spans.tracing)

    for _ in range(60):
        await application.ask_with("/healthz")

    assert (len(spans.all), spans.tracing.omitted) == (50, 10)


async def test_path_that_has_no_route_is_in_no_span(traced, spans):
    await (await traced(ALWAYS)).ask_with("/a/canary/c", method="PROPFIND")

    [span] = spans.all
    assert (span.name, span.attributes["url.path"]) == ("HTTP", "REDACTED")
    assert span.attributes["http.request.method"] == "_OTHER"
    assert "canary" not in span.to_json()


async def test_concurrent_requests_have_their_own_traces(traced, spans):
    application = await traced(ALWAYS)

    await asyncio.gather(*(application.ask_with(f"/absent-{n}") for n in range(5)))

    servers = {span.context.trace_id for span in spans.all if span.kind.name == "SERVER"}
    assert len(servers) == 5
    assert origins() == ()


def test_route_template_keeps_no_value(application):
    table = application._rsgi._table

    assert table.template("/api/v1/links/links") == "/api/v1/links/{slug}"
    assert table.template("/healthz") == "/healthz"
    assert table.template("/a/b/c") is None


OFF = """
import asyncio, sys
from contextlib import AsyncExitStack
from app import settings
from app.bootstrap import open_gateway
from app.main import create
from app.migrations import migrate
from app.web.rsgi import RsgiApplication

assert type(create()) is RsgiApplication

async def serve():
    loaded = settings.load()
    migrate(loaded.store_url)
    async with open_gateway(loaded) as services:
        assert services.tracing is None

asyncio.run(serve())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_nothing_of_tracing_is_loaded_while_it_is_off(tmp_path):
    """The bridge is the one without spans, and no port has a wrapper more."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "HOPGATE_"))}

    done = subprocess.run(
        [sys.executable, "-c", OFF],
        env={**kept, "HOPGATE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


# --- sampling and settings ---------------------------------------------------------------


def test_ratio_decides_by_the_trace_id():
    half = Sampling(0.5, follows_parent=True)

    assert half.takes(0, None)
    assert not half.takes(2**64 - 1, None)
    assert half.takes(2**64 - 1, parent_is_sampled=True)
    assert not Sampling(0.5, follows_parent=False).takes(2**64 - 1, parent_is_sampled=True)
    assert Sampling(1.0, follows_parent=True).takes(2**128 - 1, None)


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:geheim@collector:4318/x?key=geheim"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_tracing_is_off(environment):
    assert tracing_settings(environment) is None


def test_tracing_is_on():
    found = tracing_settings(ENDPOINT)

    assert found is not None
    assert (found.endpoint, found.sampling) == (
        "http://collector:4318/x",
        Sampling(0.01, follows_parent=True),
    )
    assert tracing_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces"})


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("always_on", "0.5", Sampling(1.0, follows_parent=False)),
        ("parentbased_always_off", "", Sampling(0.0, follows_parent=True)),
        ("traceidratio", "0.25", Sampling(0.25, follows_parent=False)),
        ("parentbased_traceidratio", "", Sampling(1.0, follows_parent=True)),
        ("", "0.5", Sampling(0.5, follows_parent=True)),
    ],
)
def test_samplers(sampler, argument, expected):
    found = tracing_settings(
        {**ENDPOINT, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    )

    assert found is not None
    assert found.sampling == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "²"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1" + 99 * "0"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    ],
)
def test_what_cannot_be_done_is_an_error(name, value):
    with pytest.raises(SettingsError, match=name) as caught:
        tracing_settings({**ENDPOINT, name: value})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_SERVICE_NAME": "a", "OTEL_RESOURCE_ATTRIBUTES": "service.name=b"}, "a"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "x=y, service.name=b"}, "b"),
        ({}, None),
    ],
)
def test_service_name(variables, expected):
    found = tracing_settings({**ENDPOINT, **variables})

    assert found is not None
    assert found.service_name == expected


async def test_every_method_of_every_port_has_a_row(spans, embedded_store, cache, bus):
    """A port with a method more would end a process with tracing on, and no other."""
    tracing = spans.tracing

    traced_store(embedded_store, tracing, "sqlite")
    traced_cache(cache, tracing, "memory")
    traced_bus(bus, tracing, "memory")
    traced_replica(embedded_store, tracing)


# --- work --------------------------------------------------------------------------------


async def test_work_for_one_request_is_its_child(cache):
    spans = Spans(wall=lambda: ORIGIN.at + FRESH_S - 1)
    traced = traced_cache(cache, spans.tracing, "memory")

    with on_behalf_of([ORIGIN]):
        await traced.get_many([Slug("a"), Slug("b")])

    [span] = spans.all
    assert (span.context.trace_id, span.parent.span_id) == (ORIGIN.trace_id, ORIGIN.span_id)
    assert dict(span.attributes) == {
        "db.system.name": "memory",
        "db.operation.name": "MGET",
        "db.collection.name": "links",
        "db.operation.batch.size": 2,
    }


async def test_work_for_no_recorded_request_is_not_recorded(cache, spans):
    await traced_cache(cache, spans.tracing, "memory").get_many([Slug("a")])

    assert spans.all == ()


async def test_work_for_an_old_request_links_to_it(cache):
    spans = Spans(wall=lambda: ORIGIN.at + FRESH_S + 1)

    with on_behalf_of([ORIGIN]):
        await traced_cache(cache, spans.tracing, "memory").get_many([Slug("a")])

    [span] = spans.all
    assert span.parent is None
    assert span.context.trace_id != ORIGIN.trace_id
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [
        (ORIGIN.trace_id, ORIGIN.span_id)
    ]


async def test_batch_links_to_every_request(cache):
    spans = Spans(wall=lambda: ORIGIN.at)
    traced = traced_cache(cache, spans.tracing, "memory")

    async def ask(slugs: list[Slug]) -> None:
        await traced.get_many(slugs)

    batches = Batches(ask, max_under_way=1, max_batch=10)
    others = [replace(ORIGIN, span_id=n) for n in (1, 2)]
    for other, slug in zip(others, ("a", "b"), strict=True):
        with on_behalf_of([other]):
            batches.add(Slug(slug))
    batches.add(Slug("c"))

    await batches.drain()

    [span] = spans.all
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [1, 2]


async def test_failed_call_names_the_error_and_not_its_message(spans, cache):
    async def away(_slugs):
        raise Unavailable("redis", "canary")

    cache.get_many = away
    with pytest.raises(Unavailable), on_behalf_of([replace(ORIGIN, at=9e9)]):
        await traced_cache(cache, spans.tracing, "redis").get_many([Slug("a")])

    [span] = spans.all
    assert (span.attributes["error.type"], span.status.is_ok) == ("Unavailable", False)
    assert "canary" not in span.to_json()


async def test_events_carry_their_request_through_the_bus(bus):
    spans = Spans(wall=lambda: ORIGIN.at)
    traced, handled = traced_bus(bus, spans.tracing, "memory"), asyncio.Event()
    seen: list[Origin] = []

    async def handler(events):
        seen.extend(origins())
        handled.set()

    await traced.consume(WorkQueue.CACHE, handler)
    with on_behalf_of([ORIGIN]):
        await traced.publish([LinkChanged(Slug("a"), 1)])
    await asyncio.wait_for(handled.wait(), 10)
    await asyncio.sleep(0)

    published, processed = sorted(spans.all, key=lambda span: span.start_time)
    assert [published.name, processed.name] == ["publish hopgate.events", "process hopgate.cache"]
    assert published.parent.span_id == ORIGIN.span_id
    assert processed.parent.span_id == published.context.span_id
    assert [one.span_id for one in seen] == [processed.context.span_id]


async def test_shared_publish_leaves_each_event_its_request(bus):
    spans = Spans(wall=lambda: ORIGIN.at)
    taken, handled = [], asyncio.Event()

    async def handler(events):
        taken.extend(events)
        if len(taken) == 3:
            handled.set()

    await bus.consume(WorkQueue.CACHE, handler)
    others = [replace(ORIGIN, span_id=n) for n in (1, 2)]
    events: list[Event] = [
        LinkChanged(Slug("a"), 1, origin=others[0]),
        LinkChanged(Slug("b"), 1, origin=others[1]),
        LinksMissed((Slug("c"),)),
    ]
    with on_behalf_of(others):
        await traced_bus(bus, spans.tracing, "memory").publish(events)
    await asyncio.wait_for(handled.wait(), 10)

    [published] = spans.all
    assert [link.context.span_id for link in published.links] == [1, 2]
    assert [event.origin.span_id for event in taken] == [1, 2, published.context.span_id]


def test_origin_survives_headers_and_rows():
    origin = replace(ORIGIN, tracestate="a=1,b=2", baggage="c=d")

    assert read_origin(origin_headers(origin)) == origin
    assert decode_origin(encode_origin(origin)) == origin
    assert encode_origin(None) is None
    assert decode_origin(None) is None
    assert origin_headers(None) == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": b"x"},
        {"traceparent": 7},
        {"traceparent": CALLER[:-2] + "00"},
        {"tracestate": "a=1"},
    ],
)
def test_headers_of_other_publishers_are_no_origin(headers):
    assert read_origin(headers) is None


def test_headers_of_other_publishers_are_checked():
    headers = {
        "traceparent": CALLER,
        "tracestate": "é" * 3,
        "baggage": "x" * 2000,
        "x-hopgate-traced-at": "n",
    }

    assert read_origin(headers) == replace(ORIGIN, at=0.0)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"traceparent": 1}'])
def test_unreadable_row_has_no_origin(text):
    assert decode_origin(text) is None


def test_origin_is_no_part_of_an_event():
    assert LinkChanged(Slug("a"), 1, origin=ORIGIN) == LinkChanged(Slug("a"), 1)
    assert hash(LinkChanged(Slug("a"), 1, origin=ORIGIN)) == hash(LinkChanged(Slug("a"), 1))


# --- export ------------------------------------------------------------------------------


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
