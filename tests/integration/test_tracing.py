"""Traces of real processes: two gateways of two processes and a worker on real servers, and a collector."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from app.domain.link import Slug
from app.wire import cache_key
from tests.servers.hopgate import Gateway, Worker, eventually, make_key
from tests.servers.otlp import Collector, Received
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]
LINKS = "/api/v1/links"
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5


class Traced:
    def __init__(self, collector, gateways, worker, settings, rabbitmq, redis) -> None:
        self.collector = collector
        self.gateways = gateways
        self.worker = worker
        self.settings = settings
        self.rabbitmq = rabbitmq
        self.redis = redis
        self.key = make_key({name: value for name, value in settings.items() if "OTEL" not in name})

    def create(self, target: str = "https://example.com/", **headers: str) -> str:
        answer = httpx.post(
            f"{self.gateways[0].url}{LINKS}",
            json={"long_url": target},
            headers={"authorization": f"Bearer {self.key}", **headers},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["slug"]

    def find(self, what: str, wanted) -> Received:
        eventually(lambda: self.collector.spans(wanted), 30, what)
        return self.collector.spans(wanted)[0]


@pytest.fixture(scope="module", params=["on", "off"], ids=["front", "alone"])
def traced(request, postgres, redis_server, rabbitmq, tmp_path_factory) -> Iterator[Traced]:
    directory = tmp_path_factory.mktemp("traced")
    with ExitStack() as running:
        collector = running.enter_context(Collector())
        settings = {
            **stack_settings(postgres, redis_server, rabbitmq),
            **collector.settings,
            "HOPGATE_TRUSTED_PROXIES": "127.0.0.1",
            "HOPGATE_WORKERS": "2",
            "HOPGATE_FRONT": request.param,
            # What all logs say is searched for secrets.
            "HOPGATE_ACCESS_LOG": "on",
            "HOPGATE_LOG_LEVEL": "debug",
        }
        gateways = [running.enter_context(Gateway(settings, directory)) for _ in range(2)]
        worker = running.enter_context(Worker(settings, directory))
        yield Traced(collector, gateways, worker, settings, rabbitmq, redis_server)


def traceparent(trace: str, flags: str = "01") -> str:
    return f"00-{trace}-00f067aa0ba902b7-{flags}"


def ancestors(spans: list[Received], span: Received) -> list[str]:
    """The names from *span* up to the root."""
    by_id = {one.span: one for one in spans}
    names = [span.name]
    while span.parent in by_id:
        span = by_id[span.parent]
        names.append(span.name)
    return names


CHANGE = [
    "process hopgate.invalidations",
    "publish hopgate.invalidations",
    "process hopgate.cache",
    "publish hopgate.events",
    "INSERT links",
    "POST /api/v1/links",
]


def change_is_whole(traced: Traced, trace: str) -> bool:
    """Did the change of *trace* go through the worker to every process of both gateways?"""
    spans = traced.collector.trace(trace)
    heard = {
        span.instance
        for span in spans
        if span.name == CHANGE[0] and ancestors(spans, span) == CHANGE and "gateway" in span.service
    }
    return len(heard) == 4 and change_is_cached(traced, trace)


def change_is_cached(traced: Traced, trace: str) -> bool:
    """Did the worker write the change of *trace* to the cache?"""
    spans = traced.collector.trace(trace)
    stored = [span for span in spans if span.name == "compare-and-set links" and "worker" in span.service]
    return any(ancestors(spans, span)[1:] == CHANGE[2:] for span in stored)


def test_a_create_is_one_trace_to_the_other_gateway(traced):
    # On a busy machine a call may be late, and is repeated: its trace has a span with an error, as it should.
    for trace in ("4bf92f3577b34da6a3ce929d0e0e4736", "1" * 31 + "2", "1" * 31 + "3"):
        traced.create(traceparent=traceparent(trace), tracestate="vendor=1")
        eventually(lambda: change_is_whole(traced, trace), 30, "the whole trace")  # noqa: B023 - called at once
        spans = traced.collector.trace(trace)
        failed = [(span.name, span.attributes.get("error.type")) for span in spans if span.is_error]
        if not failed:
            break
    assert failed == []
    [server] = [span for span in spans if span.kind == SERVER]
    assert server.parent == "00f067aa0ba902b7"
    assert server.state == "vendor=1"
    assert (
        server.attributes.items()
        >= {
            "http.request.method": "POST",
            "http.route": LINKS,
            "http.response.status_code": 201,
            "url.scheme": "http",
            "url.path": LINKS,
            "server.address": "hop.example",
            "server.port": 80,
        }.items()
    )
    [inserted] = [span for span in spans if span.name == "INSERT links"]
    assert (inserted.kind, inserted.attributes["db.system.name"]) == (CLIENT, "postgresql")
    [published] = [span for span in spans if span.name == "publish hopgate.events"]
    assert published.kind == PRODUCER
    assert (
        published.attributes.items()
        >= {
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "send",
            "messaging.destination.name": "hopgate.events",
            "messaging.rabbitmq.destination.routing_key": "hopgate.cache",
        }.items()
    )
    assert {span.kind for span in spans if span.name.startswith("process ")} == {CONSUMER}
    assert {span.service for span in spans} == {"hopgate-gateway", "hopgate-worker"}


def test_a_change_relayed_after_an_outage_is_in_the_trace_of_its_request(traced):
    trace = "11111111111111111111111111111111"
    traced.rabbitmq.stop()
    try:
        traced.create(traceparent=traceparent(trace))
        eventually(
            lambda: any(
                span.name == "publish hopgate.events" and span.attributes.get("error.type") == "not_confirmed"
                for span in traced.collector.trace(trace)
            ),
            30,
            "the broker is away",
        )
    finally:
        traced.rabbitmq.start()

    # A gateway that connects again later flushes its L1 cache instead of receiving the change.
    eventually(lambda: change_is_cached(traced, trace), 60, "the relay goes on with the trace")

    published = [span for span in traced.collector.trace(trace) if span.name == "publish hopgate.events"]
    assert [span.service for span in published if not span.is_error] == ["hopgate-worker"]


FILL = ["compare-and-set links", "process hopgate.cache", "publish hopgate.events"]


def fill_of_a_new_link(traced: Traced, created: str, trace: str) -> str | None:
    """Visit a new link that no cache holds; return its slug if the fill is a part of *trace*."""
    slug = traced.create(traceparent=traceparent(created))
    eventually(lambda: change_is_cached(traced, created), 30, "the create is cached")
    traced.redis.command("DEL", cache_key(Slug(slug)))
    answer = httpx.get(f"{traced.gateways[1].url}/{slug}", headers={"traceparent": traceparent(trace)})
    assert answer.status_code == 302
    try:
        eventually(lambda: has_fill(traced, trace), 10, "the fill")
    except AssertionError:
        return None
    return slug


def has_fill(traced: Traced, trace: str) -> bool:
    spans = traced.collector.trace(trace)
    return any(ancestors(spans, span)[:3] == FILL for span in spans)


def test_a_visit_that_misses_is_one_trace_with_its_fill(traced):
    # After an outage an event may come twice, and fill the cache before the visit or together with it.
    for attempt in range(5):
        trace = f"{0x2200 + attempt:032x}"
        slug = fill_of_a_new_link(traced, f"{0x2100 + attempt:032x}", trace)
        if slug is not None:
            break
    assert slug is not None

    def names() -> set[str]:
        return {span.name for span in traced.collector.trace(trace)}

    # The front reports the visit itself, in a batch of its own.
    eventually(lambda: names() >= {"GET /{slug}", "MGET links", "SELECT links"}, 30, "the visit")
    spans = traced.collector.trace(trace)
    misses = [span for span in spans if span.attributes.get("hopgate.l1") == "miss"]
    assert {span.attributes["url.path"] for span in misses} == {"/{slug}"}
    assert slug not in str([span.attributes for span in spans])


def test_exported_spans_and_logs_hold_no_secret(traced):
    """All levels and requests are logged. The broker has been away: logs quote its driver."""
    key, query, address = traced.key, "canary-of-the-query", "203.0.113.77"
    client = {"x-forwarded-for": address, "x-request-id": "request-of-a-canary"}
    slug = traced.create("https://example.com/canary-of-the-target", **client)
    httpx.get(f"{traced.gateways[0].url}/{slug}?x={query}", headers=client)
    traced.find("the visit", lambda span: span.attributes.get("http.route") == "/{slug}")
    refused = {**client, "authorization": f"Bearer {key}"}
    httpx.get(f"{traced.gateways[0].url}{LINKS}?limit={query}", headers=refused)
    traced.find("the refusal", lambda span: span.attributes.get("http.response.status_code") == 422)

    def logged() -> str:
        return "".join(process.output for process in [*traced.gateways, traced.worker])

    def mine() -> list[dict]:
        lines = [json.loads(line) for line in logged().splitlines() if '"hopgate.access"' in line]
        return [line for line in lines if line.get("request_id") == "request-of-a-canary"]

    # The front reports its requests in batches.
    eventually(lambda: len(mine()) >= 3, what="all three requests are logged")
    exported, logs = traced.collector.text, logged()

    services = [traced.settings[f"HOPGATE_{name}_URL"] for name in ("DATABASE", "REDIS", "AMQP")]
    passwords = [found[1] for url in services if (found := re.search(r"//[^:@/]*:([^@]+)@", url))]
    assert passwords
    for secret in (key, query, "canary-of-the-target", "127.0.0.1", address, slug, *passwords):
        assert secret.encode() not in exported
    for secret in (key, query, "canary-of-the-target", address, *(f":{one}@" for one in passwords)):
        assert secret not in logs
    assert sorted((line["route"], line["status"], line["client"]) for line in mine()) == [
        (LINKS, 201, "203.0.113.0/24"),
        (LINKS, 422, "203.0.113.0/24"),
        ("/{slug}", 302, "203.0.113.0/24"),
    ]
    assert all(line["trace_id"] and line["span_id"] for line in mine())
    assert slug not in str([line for line in logs.splitlines() if '"hopgate.access"' in line])
