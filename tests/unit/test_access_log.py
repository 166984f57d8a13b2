"""The access log: which requests have a line, and what a line says."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import ip_network

import pytest

from app.domain.link import LinkFields
from app.settings import Settings
from app.telemetry.access_log import AccessLog
from app.telemetry.logs import JsonFormatter, configure
from app.web.client import network_of
from app.web.logged import LoggedApplication
from app.web.rsgi import layered
from app.web.traced import TracedApplication, server_attributes
from tests.unit.spans import ALWAYS, CALLER, PROXY, TRACE
from tests.unit.whole_application import Application, Headers, Protocol, Scope

LINKS = "/api/v1/links"


@contextmanager
def lines():
    """The lines of the access log, parsed, once the body has ended."""
    stream = io.StringIO()
    found: list[dict] = []
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("hopgate.access")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        found += map(json.loads, stream.getvalue().splitlines())


@pytest.fixture
def logged(application, monotonic):
    """Makes the application with an access log."""

    async def make(log: AccessLog, bridge=LoggedApplication, **options) -> Application:
        services = replace(application.services, trusted_proxies=(ip_network("10.0.0.0/8"),))
        if "sampling" in options:
            services = replace(services, tracing=options.pop("tracing"))

        @asynccontextmanager
        async def opened():
            yield services

        rsgi = bridge(opened, access_log=log, monotonic=monotonic, **options)
        await rsgi._open()
        return Application(services, rsgi)

    return make


def always() -> AccessLog:
    return AccessLog(1.0, random=lambda: 0.99)


async def ask(
    application: Application, method: str, path: str, *, query: str = "", **headers: str
) -> Protocol:
    protocol, scope = Protocol(), Scope(method, path)
    scope.query_string, scope.client = query, PROXY
    named = {name.replace("_", "-"): [value] for name, value in headers.items()}
    scope.headers = Headers(scope.headers, **named)
    await application._rsgi.__rsgi__(scope, protocol)
    return protocol


# --- a line ------------------------------------------------------------------------------


async def test_line_of_a_redirect_from_the_l1_cache(logged):
    application = await logged(always())
    made = await application.services.links.create(LinkFields(long_url="https://example.com/canary"))
    await ask(application, "GET", f"/{made.link.slug}")

    with lines() as found:
        await ask(
            application,
            "GET",
            f"/{made.link.slug}",
            query="canary=1",
            x_forwarded_for="203.0.113.77",
            x_request_id="of-the-proxy",
            user_agent="canary",
        )

    [line] = found
    del line["time"], line["pid"]
    assert line == {
        "level": "info",
        "logger": "hopgate.access",
        "message": "GET /{slug} 302",
        "method": "GET",
        "route": "/{slug}",
        "status": 302,
        "duration_s": 0,
        "client": "203.0.113.0/24",
        "request_id": "of-the-proxy",
    }


async def test_line_has_the_id_that_the_api_returned(logged):
    application = await logged(always())

    with lines() as found:
        answer = await ask(application, "GET", LINKS)

    assert (found[0]["request_id"], found[0]["status"]) == (answer.headers["x-request-id"], 401)


async def test_line_holds_nothing_that_a_client_chooses(logged):
    application = await logged(always())

    with lines() as found:
        await ask(application, "CANARY", "/a/canary/b", query="canary", x_forwarded_for="canary")
        await ask(application, "GET", f"{LINKS}/canary")
        await ask(application, "GET", "/canary.x", authorization="Bearer canary")

    assert [(line["method"], line["route"]) for line in found] == [
        ("_OTHER", "unknown"),
        ("GET", "/api/v1/links/{slug}"),
        ("GET", "/{slug}"),
    ]
    assert "canary" not in str(found)


async def test_duration_is_in_seconds(logged, monotonic):
    application = await logged(always())

    async def slow(*_, **__):
        monotonic.now += 0.25
        raise RuntimeError("a bug")

    application.services.redirects.answer = slow
    with lines() as found:
        await ask(application, "GET", "/unseen")

    assert (found[0]["duration_s"], found[0]["status"]) == (0.25, 500)


async def test_line_has_the_ids_of_its_span(logged, spans):
    application = await logged(
        always(),
        layered(TracedApplication, LoggedApplication),
        sampling=ALWAYS,
        slow_s=60.0,
        server=server_attributes("http://hop.example"),
        tracing=spans.tracing,
    )

    with lines() as found:
        await ask(application, "GET", "/healthz", traceparent=CALLER)

    [span] = spans.all
    [line] = found
    assert (line["trace_id"], line["span_id"]) == (TRACE, f"{span.context.span_id:016x}")


async def test_request_that_is_cancelled_has_a_line(logged):
    application = await logged(always())

    async def never(*_, **__):
        await asyncio.Event().wait()

    application.services.redirects.answer = never
    with lines() as found:
        task = asyncio.create_task(ask(application, "GET", "/unseen"))
        while application.services.requests.active == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [line["status"] for line in found] == [499]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("unix:", None),
        ("", None),
    ],
)
def test_network_of_a_client(address, network):
    assert network_of(address) == network


# --- the sample --------------------------------------------------------------------------


def test_sample_is_one_of_traces():
    """The random source has no say where there is a trace, so all processes log the same traces."""
    log = AccessLog(0.25, random=lambda: pytest.fail("a trace decides"))
    step = 2**64 // 1000

    taken = Counter(log.takes((7 << 64) + n * step, 200) for n in range(1, 1000))

    assert taken == {True: 250, False: 749}
    assert log.takes(2**64 - 1, 503)


@pytest.mark.parametrize(("draw", "taken"), [(0.0, True), (0.2499, True), (0.25, False), (0.99, False)])
def test_sample_without_traces_is_random(draw, taken):
    assert AccessLog(0.25, random=lambda: draw).takes(0, 302) is taken


async def test_failures_have_a_line_outside_of_the_sample(logged):
    application = await logged(AccessLog(0.01, random=lambda: 0.5))
    application.press(10**6)

    with lines() as found:
        await ask(application, "GET", "/healthz")
        await ask(application, "GET", LINKS)

    assert [line["status"] for line in found] == [503]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("off", 0),
        ("0", 0),
        ("on", 1),
        ("ON", 1),
        ("1.0", 1),
        ("0.01", 0.01),
        (0.5, 0.5),
        (True, 1),
        (False, 0),
    ],
)
def test_setting(text, share, tmp_path):
    assert Settings(data_dir=tmp_path, access_log=text).access_log_share == share


@pytest.mark.parametrize("text", ["yes", "-0.1", "1.1", "nan", "inf", "1 %"])
def test_other_settings_are_refused(text, tmp_path):
    with pytest.raises(ValueError, match="is neither off nor on, nor a number from 0 to 1"):
        Settings(data_dir=tmp_path, access_log=text)


async def test_level_of_other_logs_hides_no_line(logged):
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure("error", stream)
        await ask(await logged(always()), "GET", "/healthz")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)

    assert json.loads(stream.getvalue())["route"] == "/healthz"
