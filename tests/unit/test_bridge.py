"""What the bridge makes of a Robyn application, before any server runs."""

from __future__ import annotations

import io
import json
import logging

import pytest

from app.telemetry.logs import JsonFormatter
from app.web.answer import UnsendableHeader, check_headers
from app.web.robyn_compat import new_application, new_request, routes_of, to_response
from app.web.rsgi import RouteTable


def request(**changes):
    return new_request(
        **{
            "method": "GET",
            "path": "/x",
            "path_params": {},
            "query": "",
            "headers": [],
            "body": b"",
            "scheme": "http",
            "host": "hop.example",
            "client": "198.51.100.7",
        }
        | changes
    )


def endpoint(path, handler):
    application = new_application()
    application.add_route("GET", path, handler)
    [route] = routes_of(application)
    return route.endpoint


async def test_arguments_are_supplied_by_name():
    def handler(slug, ip_addr, method, query_string="", *, request):
        return json.dumps([slug, ip_addr, method, query_string, request.url.path])

    answer = await endpoint("/:slug", handler)(request(path_params={"slug": "abc"}), "a=1")

    assert json.loads(answer.body) == ["abc", "198.51.100.7", "GET", "a=1", "/x"]


async def test_handlers_may_be_async_and_return_what_robyn_takes():
    async def document():
        return {"a": [1]}

    def text():
        return "ü"

    assert (await endpoint("/", document)(request(), "")).body == b'{"a":[1]}'
    assert (await endpoint("/", text)(request(), "")).body == "ü".encode()


def test_an_argument_without_a_source_is_found_at_the_start():
    with pytest.raises(TypeError, match="no source for the argument 'databse'"):
        endpoint("/", lambda databse: "")


async def test_a_result_that_is_no_response_is_an_error():
    with pytest.raises(TypeError, match="returned set"):
        await endpoint("/", lambda: {1})(request(), "")


async def test_an_answer_survives_the_way_through_a_robyn_response():
    from app.web.answer import Answer

    sent = Answer(418, [("x-a", "1"), ("x-a", "2"), ("x-b", "ü".encode().decode("latin-1"))], b"\xff\x00")

    got = await endpoint("/", lambda: to_response(sent))(request(), "")

    assert (got.status, sorted(got.headers), got.body) == (418, sorted(sent.headers), sent.body)


def test_a_request_keeps_repeated_headers_and_queries():
    made = request(headers=[("x-a", "1"), ("X-A", "2")], query="a=1&a=2&b", body=b"\xff")

    assert made.headers.multi_items() == [("x-a", "1"), ("x-a", "2")]
    assert sorted(made.query_params.multi_items()) == [("a", "1"), ("a", "2"), ("b", "")]
    assert made.body == b"\xff"


def test_a_literal_path_wins_over_a_parameter():
    async def literal(_request, _query): ...
    async def parameter(_request, _query): ...

    from app.web.robyn_compat import Route

    table = RouteTable([Route("GET", "/:slug", parameter), Route("GET", "/healthz", literal)])

    assert table.find("/healthz") == ({"GET": literal}, {})
    assert table.find("/abc") == ({"GET": parameter}, {"slug": "abc"})
    assert [table.find(path) for path in ("/", "", "/a/b", "//")] == [None] * 4
    assert table.is_literal("/healthz")
    assert not table.is_literal("/abc")


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
def test_a_header_that_the_server_would_drop_is_an_error(header):
    with pytest.raises(UnsendableHeader):
        check_headers([header])


def test_a_log_line_cannot_be_forged():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("hopgate-forged")
    logger.addHandler(handler)

    logger.warning('one\n{"level":"info"}\x1b[31m %s', "\u2028")

    [line, rest] = stream.getvalue().split("\n")
    assert json.loads(line)["level"] == "warning"
    assert rest == ""
