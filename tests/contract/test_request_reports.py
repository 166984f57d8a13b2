"""
A gateway reports a request alike with its front and without: the same spans, the same line in the access log.

With it, the front reports what it answers, and the application what is passed on: one trace for each request,
one server span, one line.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.servers.hopgate import UNLIMITED, Gateway, eventually, make_key
from tests.servers.otlp import Collector, Received
from tests.servers.raw_http import RawAnswer, answer_on, answered

LINKS = "/api/v1/links"
SERVER = 2
CALLER = "00f067aa0ba902b7"
ARRANGEMENTS = ["off", "on"]
# Differ from one request to the next.
OWN = frozenset({"time", "pid", "duration_s", "trace_id", "span_id"})
_numbers = itertools.count(1)


@dataclass
class Reporting:
    gateway: Gateway
    collector: Collector
    key: str

    def ask(self, method: str, path: str, *headers: str, version: str = "1.1", flags: str = "01") -> str:
        """Send a request as a trusted proxy does; return its trace."""
        trace = f"{next(_numbers):032x}"
        self.answer(method, path, f"traceparent: 00-{trace}-{CALLER}-{flags}", *headers, version=version)
        return trace

    def answer(self, method: str, path: str, *headers: str, version: str = "1.1") -> RawAnswer:
        has_host = any(line.lower().startswith("host:") for line in headers)
        host = [] if has_host else ["Host: hop.example"]
        lines = [f"{method} {path} HTTP/{version}", *host, "Connection: close", *headers, "", ""]
        return answered(self.gateway.port, "\r\n".join(lines).encode("latin-1"))

    def link(self, **fields: Any) -> str:
        """Make a link that the L1 cache does not hold."""
        headers = {"authorization": f"Bearer {self.key}"}
        made = httpx.post(
            f"{self.gateway.url}{LINKS}", json={"long_url": "https://example.com/", **fields}, headers=headers
        )
        assert made.status_code == 201, made.text
        return made.json()["slug"]

    def server_span(self, trace: str) -> Received:
        def found() -> list[Received]:
            return [span for span in self.collector.trace(trace) if span.kind == SERVER]

        eventually(found, 20, f"the span of {trace}")
        [span] = found()
        return span

    def lines(self) -> list[dict]:
        lines = (line for line in self.gateway.output.splitlines() if '"hopgate.access"' in line)
        return [json.loads(line) for line in lines]

    def line(self, trace: str) -> dict:
        def found() -> list[dict]:
            return [line for line in self.lines() if line["trace_id"] == trace]

        eventually(found, 20, f"the line of {trace}")
        [line] = found()
        return line


def started(folder, front: str, stack: ExitStack, **settings: str) -> Reporting:
    collector = stack.enter_context(Collector())
    given = {
        "HOPGATE_DATA_DIR": str(folder / "data"),
        "HOPGATE_BASE_URL": "http://hop.example/go",
        "HOPGATE_TRUSTED_PROXIES": "127.0.0.1",
        "HOPGATE_ACCESS_LOG": "on",
        "HOPGATE_FRONT": front,
        **UNLIMITED,
        **settings,
    }
    key = make_key(given)
    gateway = stack.enter_context(Gateway({**collector.settings, **given}, folder))
    return Reporting(gateway, collector, key)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Iterator[dict[str, Reporting]]:
    with ExitStack() as stack:
        yield {front: started(tmp_path_factory.mktemp(front), front, stack) for front in ARRANGEMENTS}


def reported(reporting: Reporting, trace: str) -> dict[str, Any]:
    """All that is reported of the one request of *trace*, without what differs each time."""
    server, line = reporting.server_span(trace), reporting.line(trace)
    assert (line["trace_id"], line["span_id"]) == (server.trace, server.span)
    children = {span.name for span in reporting.collector.trace(trace) if span.parent == server.span}
    return {
        "name": server.name,
        "parent": server.parent,
        "state": server.state,
        "attributes": server.attributes,
        "is_error": server.is_error,
        "children": children,
        "line": {name: value for name, value in line.items() if name not in OWN},
    }


# Case: method, path with the slug of a new link, fields of that, headers, version of HTTP.
REQUESTS: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...], str]] = {
    "miss": ("GET", "/{slug}", {}, (), "1.1"),
    "below the base path": ("GET", "/go/{slug}", {}, (), "1.1"),
    "permanent": ("GET", "/{slug}", {"redirect_code": 308}, (), "1.1"),
    "http 1.0": ("GET", "/{slug}", {}, (), "1.0"),
    "head": ("HEAD", "/{slug}", {}, (), "1.1"),
    "forwarded query": ("GET", "/{slug}?b=2", {"forward_query": True}, (), "1.1"),
    "absent": ("GET", "/absent-{slug}", {}, (), "1.1"),
    "no slug": ("GET", "/a/b/{slug}", {}, (), "1.1"),
    "dotted": ("GET", "/{slug}.html", {}, (), "1.1"),
    "post": ("POST", "/{slug}", {}, ("Content-Length: 0",), "1.1"),
    "made up": ("BREW", "/{slug}", {}, (), "1.1"),
    "page": ("GET", "/healthz", {}, (), "1.1"),
    "api": ("GET", "/api/v1/links/{slug}", {}, ("X-Request-Id: an-id",), "1.1"),
    "bad host": ("GET", "/{slug}", {}, ("Host: a@b",), "1.1"),
    "state": ("GET", "/{slug}", {}, ("tracestate: a=1", "tracestate: b=2"), "1.1"),
    "long state": ("GET", "/{slug}", {}, (f"tracestate: a={'x' * 600}",), "1.1"),
    "client": ("GET", "/{slug}", {}, ("X-Forwarded-For: 203.0.113.77", "X-Request-Id: of-it"), "1.1"),
    "network": ("GET", "/{slug}", {}, ("X-Forwarded-For: 2001:db8:1:2::3",), "1.1"),
    "two ids": ("GET", "/{slug}", {}, ("X-Request-Id: a", "X-Request-Id: b"), "1.1"),
    "id with a space": ("GET", "/{slug}", {}, ("X-Request-Id: a b",), "1.1"),
    "unreadable client": ("GET", "/{slug}", {}, ("X-Forwarded-For: \xe9",), "1.1"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_request_is_reported_alike(both, case):
    """Twice: the second finds in the L1 cache what the first had to look up."""
    method, path, fields, headers, version = REQUESTS[case]
    found = {}
    for front, reporting in both.items():
        slug = reporting.link(slug=f"reported-{case.replace(' ', '-').replace('.', '-')}", **fields)
        asked = method, path.format(slug=slug), *headers
        traces = [reporting.ask(*asked, version=version) for _ in range(2)]
        found[front] = [reported(reporting, trace) for trace in traces]

    assert found["on"] == found["off"]
    assert found["on"][0]["parent"] == CALLER


@pytest.mark.parametrize("given", ["mine", "not one", None])
def test_answer_to_half_a_body_returns_the_id_of_its_line(both, given):
    """The front gives it itself: the application gets no whole request."""
    for front, reporting in both.items():
        trace = f"{next(_numbers):032x}"
        named = [] if given is None else [f"X-Request-Id: {given}"]
        lines = [
            f"POST {LINKS} HTTP/1.1",
            "Host: hop.example",
            f"traceparent: 00-{trace}-{CALLER}-01",
            "Content-Length: 10",
            *named,
            "",
            "half",
        ]
        with socket.create_connection(("127.0.0.1", reporting.gateway.port), timeout=20) as connection:
            connection.sendall("\r\n".join(lines).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = answer_on(connection)

        returned = answer.header("x-request-id")
        assert answer.status == 400, front
        assert returned == given if given == "mine" else len(returned or "") == 16
        assert reporting.line(trace)["request_id"] == returned


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/openapi.json"])
def test_reported_request_may_have_97_fields(both, path):
    """The front adds its own to them, and granian counts all."""
    for front, reporting in both.items():
        lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"X-{number}: a" for number in range(96)), "", ""]
        assert answered(reporting.gateway.port, "\r\n".join(lines).encode()).status == 200, front


@pytest.mark.parametrize("header", ["Host: a@b", "X-Forwarded-For: \xe9"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_refusal_of_a_head_returns_the_id(both, method, header):
    for front, reporting in both.items():
        path = f"{LINKS}/any"
        answers = [reporting.answer(method, path, header, *own) for own in ((), ("X-Request-Id: mine",))]
        ids = [answer.header("x-request-id") or "" for answer in answers]

        assert [answer.status for answer in answers] == [400, 400], front
        assert (len(ids[0]), ids[1]) == (16, "mine"), front


def test_request_that_cannot_be_passed_on_is_reported_without_a_route(tmp_path):
    with ExitStack() as stack:
        reporting = started(tmp_path, "on", stack, HOPGATE_BASE_URL="http://hop.example/go")
        [private] = tmp_path.glob("hopgate-*/0.sock")
        private.unlink()

        def is_away() -> bool:
            return reporting.answer("GET", "/go/api/v1/me").status == 503

        # Connections that are open already are kept for four seconds after each request.
        eventually(is_away, 30, "the application cannot be reached", every=4.5)
        answers = [reporting.answer("GET", path) for path in ("/api/v1/me", "/go/api/v1/me", "/healthz")]
        named = reporting.answer("POST", LINKS, "X-Request-Id: mine", "Content-Length: 0")
        trace = reporting.ask("POST", LINKS, "X-Request-Id: mine", "Content-Length: 0")
        span, line = reporting.server_span(trace), reporting.line(trace)

    assert [len(answer.header("x-request-id") or "") for answer in answers] == [16, 16, 0]
    assert (named.status, named.header("x-request-id")) == (503, "mine")
    assert (span.name, line["route"], line["request_id"]) == ("POST", "unknown", "mine")
    assert not {"http.route", "hopgate.l1"} & span.attributes.keys()


def test_the_front_reports_what_it_answers(both):
    """A hit leaves no other trace than its record: nothing of it comes by the application."""
    reporting = both["on"]
    path = f"/{reporting.link()}"
    before = time.time_ns()
    first, second = reporting.ask("GET", path), reporting.ask("GET", path)
    after = time.time_ns()

    missed, hit = reporting.server_span(first), reporting.server_span(second)

    assert reporting.answer("GET", path).header("server") == "hopgate"
    assert [span.attributes["hopgate.l1"] for span in (missed, hit)] == ["miss", "hit"]
    assert {span.name for span in reporting.collector.trace(first)} > {hit.name}, (
        "the look-up is a part of it"
    )
    assert reporting.collector.trace(second) == [hit]
    assert before < missed.started_ns < missed.ended_ns < hit.started_ns < hit.ended_ns < after


def test_caller_that_does_not_record_is_followed(both):
    for reporting in both.values():
        path = f"/{reporting.link()}"
        unrecorded = [reporting.ask("GET", path, flags="00") for _ in range(2)]
        passed_on = reporting.ask("GET", LINKS, flags="00")

        lines = [reporting.line(trace) for trace in (*unrecorded, passed_on)]
        reporting.server_span(reporting.ask("GET", path))

        assert not [span for span in reporting.collector.spans() if span.trace in {*unrecorded, passed_on}]
        assert not [line for line in lines if "span_id" in line]


def test_metered_link_is_reported_once(both):
    """The table of the front never has it, so it is a miss each time there."""
    for front, reporting in both.items():
        path = f"/{reporting.link(max_visits=2)}"
        found = [reported(reporting, reporting.ask("GET", path)) for _ in range(3)]

        assert [one["line"]["status"] for one in found] == [302, 302, 410], front
        assert found[0]["attributes"]["hopgate.l1"] == "miss", front


@pytest.mark.parametrize("front", ARRANGEMENTS)
def test_client_chooses_neither_its_trace_nor_what_is_recorded(front, tmp_path):
    with ExitStack() as stack:
        reporting = started(tmp_path, front, stack, HOPGATE_TRUSTED_PROXIES="")
        trace = reporting.ask("GET", "/absent", "tracestate: a=1", "x-hopgate-noted: 1-2-0-3", flags="00")
        reporting.ask("GET", LINKS, "x-hopgate-noted: not-a-number", flags="00")

        def spans() -> list[Received]:
            return reporting.collector.spans(lambda span: span.kind == SERVER and "health" not in span.name)

        eventually(lambda: len(spans()) >= 2, 20, "both spans")

    assert {(span.name, span.parent, span.state) for span in spans()} == {
        ("GET /{slug}", "", ""),
        (f"GET {LINKS}", "", ""),
    }
    assert trace not in {span.trace for span in spans()}


@pytest.mark.parametrize("front", ARRANGEMENTS)
def test_slow_answer_that_is_not_recorded_has_a_span_afterwards(front, tmp_path):
    """Look-ups of unknown slugs, which take time, and which the tarpit delays if there are many."""
    with ExitStack() as stack:
        unrecorded = {"OTEL_TRACES_SAMPLER": "always_off", "HOPGATE_TRACE_SLOW_MS": "1"}
        reporting = started(tmp_path, front, stack, **unrecorded)

        def late() -> list[Received]:
            many = [f"GET /absent-{next(_numbers)} HTTP/1.1\r\nHost: x\r\n\r\n" for _ in range(100)]
            with socket.create_connection(("127.0.0.1", reporting.gateway.port), timeout=60) as connection:
                connection.sendall("".join(many).encode())
                answers = b""
                # On a busy machine some are 503, and the connection may end.
                while answers.count(b"HTTP/1.1 ") < len(many) and (more := connection.recv(1 << 20)):
                    answers += more
            return reporting.collector.spans(lambda span: span.name == "GET /{slug}")

        eventually(late, 60, "a late span")
        span = late()[0]

    assert (span.parent, span.attributes["http.response.status_code"]) == ("", 404)
    assert span.ended_ns - span.started_ns >= 1_000_000
    assert not span.is_error


@pytest.mark.parametrize("front", ARRANGEMENTS)
def test_every_request_has_one_line(front, tmp_path):
    """More at once than the front keeps: it passes on those whose line has no room."""
    count, slug = 12_000, "many"
    with ExitStack() as stack:
        reporting = started(tmp_path, front, stack, OTEL_TRACES_EXPORTER="none")
        reporting.link(slug=slug)
        request = f"GET /{slug} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", reporting.gateway.port), timeout=60) as connection:
            received = 0
            for _ in range(count // 1000):
                connection.sendall(request * 1000)
                wanted = 1000
                while wanted > 0:
                    data = connection.recv(1 << 20)
                    assert data
                    wanted -= data.count(b"HTTP/1.1 302")
                    received += data.count(b"HTTP/1.1 302")
        assert received == count
        assert reporting.gateway.stop(timeout=60) == 0

        lines = [line for line in reporting.lines() if line["route"] == "/{slug}"]

    assert len(lines) == count
    assert {(line["route"], line["status"], line.get("trace_id")) for line in lines} == {
        ("/{slug}", 302, None)
    }


@pytest.mark.parametrize("front", ARRANGEMENTS)
def test_share_of_traces_is_what_was_asked_for(front, tmp_path):
    """Decided once, wherever a request is answered: a second decision would record more."""
    with ExitStack() as stack:
        share = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
        reporting = started(tmp_path, front, stack, HOPGATE_ACCESS_LOG="0.5", **share)
        paths = [f"/{reporting.link()}", "/healthz"]
        for number in range(400):
            reporting.answer("GET", paths[number % 2])
        marks = [reporting.ask("GET", "/readyz", flags="01") for _ in range(20)]
        assert reporting.gateway.stop(timeout=60) == 0

        spans = {
            span.trace: span.span
            for span in reporting.collector.spans(lambda one: one.name in {"GET /{slug}", "GET /healthz"})
        }
        lines = [line for line in reporting.lines() if line["route"] in {"/{slug}", "/healthz"}]

    assert marks
    assert 140 < len(spans) < 260
    assert {line["trace_id"]: line["span_id"] for line in lines}.items() <= spans.items()
    assert len(lines) == len(spans)
