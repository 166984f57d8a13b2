"""Which requests are recorded, and what their spans say."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network

import pytest

from app.bootstrap.tracing import Traces
from app.concurrency.origins import origins, trace_id
from app.domain.errors import Unavailable
from app.domain.origin import Parent, read_traceparent
from app.settings.tracing import Sampling
from app.telemetry.tracing import Tracing
from app.web.traced import TracedApplication, server_attributes
from tests.unit.spans import ALWAYS, CALLER, NEVER, PROXY, TRACE, Spans
from tests.unit.whole_application import Application, Headers, Protocol, Scope


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
        used = tracing or spans.tracing
        services = replace(
            application.services,
            tracing=used,
            on_error=Traces(used).noting(application.services.on_error),
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


def exceptions(span) -> list[str]:
    """The types in the events `exception` of *span*; none has a message."""
    events = [event for event in span.events if event.name == "exception"]
    assert all(event.attributes.keys() == {"exception.type", "exception.stacktrace"} for event in events)
    return [event.attributes["exception.type"] for event in events]


@pytest.mark.parametrize("sampling", [ALWAYS, NEVER], ids=["recorded", "late"])
@pytest.mark.parametrize(
    ("error", "name", "status"),
    [
        (RuntimeError("canary"), "builtins.RuntimeError", 500),
        (Unavailable("store", "canary"), "app.domain.errors.Unavailable", 503),
    ],
)
async def test_error_of_a_request_is_an_event_of_its_span(traced, spans, sampling, error, name, status):
    """With its stack; its message may hold anything."""
    application = await traced(sampling)

    def broken(*_, **__):
        raise error

    application.services.authenticator.was_valid = broken
    assert (await application.ask_with("/api/v1/links")).status == status

    [span] = [span for span in spans.all if span.kind.name == "SERVER"]
    assert exceptions(span) == [name]
    [event] = span.events
    assert event.attributes["exception.stacktrace"].endswith(".broken")
    assert "canary" not in span.to_json()
    assert span.attributes["error.type"] == str(status)


async def test_errors_of_requests_without_a_span_are_not_kept(traced, spans):
    """An invalid request is an error, and gets no span afterwards: what was noted of it gives way."""
    application = await traced(NEVER)
    ids = iter(range(1, 1_000))

    for _ in range(300):
        token = trace_id.set(next(ids))
        spans.tracing.note_error(ValueError("x"))
        trace_id.reset(token)

    assert len(spans.tracing._held) == 256
    assert (await application.ask_with("/healthz")).status == 200
    assert spans.all == ()


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
print([name for name in sys.modules if name.startswith(("opentelemetry", "sentry_sdk", "app.web.logged"))])
"""


def test_nothing_of_tracing_reports_and_access_log_is_loaded_while_they_are_off(tmp_path):
    """The bridge is the one without spans and lines, and no port has a wrapper more."""
    asking = ("OTEL_", "SENTRY_", "HOPGATE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(asking)}

    done = subprocess.run(
        [sys.executable, "-c", OFF],
        env={**kept, "HOPGATE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
