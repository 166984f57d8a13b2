"""The bridge reads a Robyn application: routes, endpoints, headers; no server runs."""

from __future__ import annotations

import io
import json
import logging

import pytest

from app.telemetry.logs import JsonFormatter
from app.web.endpoint import Endpoint, Route
from app.web.response import Response, UnsendableHeader, check_headers
from app.web.robyn_app import new_application, public, routes_of
from app.web.route_table import RouteTable
from tests.unit.declared_routes import declared_routes


async def nothing(_request):
    return Response(204)


def test_robyn_handler_carries_its_endpoint():
    application = new_application()
    application.get("/x/:slug")(public(nothing))

    [route] = routes_of(application)

    assert (route.method, route.path) == ("GET", "/x/:slug")
    assert route.endpoint == Endpoint("nothing", nothing)


def test_robyn_handler_without_endpoint_is_refused():
    async def handler(request): ...

    application = new_application()
    application.get("/x")(handler)

    with pytest.raises(TypeError, match="the handler of /x declares no endpoint"):
        routes_of(application)


async def test_robyn_request_is_converted_once_each_way():
    """As Robyn's own server calls a handler: with its request, for its response."""
    import robyn.robyn as robyn

    seen = []

    async def handle(request):
        seen.append(request)
        return Response(418, [("x-a", "1"), ("x-a", "2")], b"\xff\x00")

    query, headers = robyn.QueryParams(), robyn.Headers({})
    for value in ("1", "2"):
        query.set("a", value)
    url = robyn.Url("http", "hop.example", "/abc")
    # Its constructor is not what its stub says.
    request = robyn.Request(query, headers, {"slug": "abc"}, b"", "GET", url, {}, {}, None, "198.51.100.7")  # type: ignore[call-arg]

    sent = await public(handle)(request)

    [got] = seen
    assert (got.method, got.path_params, got.client) == ("GET", {"slug": "abc"}, "198.51.100.7")
    assert (got.query_string, got.query) == ("a=1&a=2", {"a": "2"})
    assert (sent.status_code, sent.description) == (418, b"\xff\x00")
    assert sent.headers.multi_items() == [("x-a", "1"), ("x-a", "2")]


def test_robyn_ignores_command_line_and_environment_file(tmp_path, monkeypatch):
    """Its constructors would read `robyn.env`, and its parser would exit on an unknown option."""
    (tmp_path / "robyn.env").write_text("HOPGATE_STRAY=1\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setattr("sys.argv", ["hopgate", "--help"])

    declared_routes()

    import os

    assert "HOPGATE_STRAY" not in os.environ
    assert "ROBYN_CLI" not in os.environ


def test_literal_path_wins_over_parameter():
    literal, parameter = Endpoint("literal", nothing), Endpoint("parameter", nothing)

    table = RouteTable([Route("GET", "/:slug", parameter), Route("GET", "/healthz", literal)])

    assert table.find("/healthz") == ("/healthz", {"GET": literal}, {})
    assert table.find("/abc") == ("/{slug}", {"GET": parameter}, {"slug": "abc"})
    assert [table.find(path) for path in ("/", "", "/a/b", "//")] == [None] * 4
    assert table.is_before_slug("healthz")
    assert not table.is_before_slug("abc")


def test_route_of_several_segments_wins_over_such_a_slug():
    table = RouteTable(declared_routes(dialects={"bitly", "shlink"}))

    for path in ("v4/shorten", "v4/bitlinks/hop.example/abc", "rest/health", "rest/v3/short-urls/a/b/visits"):
        assert table.is_before_slug(path), path
    for path in ("v4/other", "rest", "V4/shorten", "a/v4/shorten", "v4/bitlinks/abc"):
        assert not table.is_before_slug(path), path
    assert not RouteTable(declared_routes()).is_before_slug("v4/shorten")


def test_headers_of_every_operation_are_checked():
    assert RouteTable(declared_routes()).headers == [
        "authorization",
        "content-encoding",
        "content-type",
        "host",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
    ]


@pytest.mark.parametrize(
    "header",
    [
        ("location", "https://example.com/\r\nx: y"),
        ("location", "https://exämple.com/"),
        ("location", "https://example.com/\x00"),
        ("location", "https://example.com/č"),  # U+010D ends in the byte of a carriage return
        ("Location", "https://example.com/"),
        ("loc ation", "https://example.com/"),
        ("", "x"),
    ],
)
def test_unsendable_header_is_an_error(header):
    with pytest.raises(UnsendableHeader):
        check_headers([header])


def test_log_line_cannot_be_forged():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("hopgate-forged")
    logger.addHandler(handler)

    logger.warning('one\n{"level":"info"}\x1b[31m %s', "\u2028")

    [line, rest] = stream.getvalue().split("\n")
    assert json.loads(line)["level"] == "warning"
    assert rest == ""
