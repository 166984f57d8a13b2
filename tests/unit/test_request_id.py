"""`X-Request-Id`: whose it is, where it is returned, and the ids in log lines and problems."""

from __future__ import annotations

import io
import json
import logging
from contextlib import contextmanager
from typing import Any

import pytest

from app.concurrency.origins import on_behalf_of, origin, request_id, trace_id
from app.domain.origin import Origin
from app.telemetry.logs import JsonFormatter
from tests.unit.whole_application import Protocol, Scope

LINKS = "/api/v1/links"


async def ask(application, path: str, *values: str, method: str = "GET") -> Protocol:
    protocol, scope = Protocol(), Scope(method, path)
    if values:
        scope.headers["x-request-id"] = list(values)
    await application._rsgi.__rsgi__(scope, protocol)
    return protocol


@contextmanager
def logged(name: str):
    """The lines of the logger *name*, parsed."""
    stream = io.StringIO()
    lines: list[dict[str, Any]] = []
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        lines += map(json.loads, stream.getvalue().splitlines())


@pytest.mark.parametrize("given", ["a", "3f2b-4.5:6_7", "~" * 128, '"!#'])
async def test_id_of_the_client_is_returned(application, given):
    answer = await ask(application, LINKS, given)

    assert answer.status == 401
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", [(), ("",), ("a" * 129,), ("a b",), ("a\n",), ("é",), ("\x7f",), ("a", "b"), ("a\r\nx: y",)]
)
async def test_other_ids_are_replaced(application, given):
    first, second = [await ask(application, LINKS, *given) for _ in range(2)]

    ids = {answer.headers["x-request-id"] for answer in (first, second)}
    assert len(ids) == 2
    assert all(len(one) == 16 for one in ids)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/", 404),
        ("POST", "/api/v2/links", 404),
        ("BREW", LINKS, 405),
        ("DELETE", LINKS, 405),
        ("OPTIONS", LINKS, 204),
        ("GET", "/api/v1/openapi.json", 200),
    ],
)
async def test_every_answer_below_api_returns_the_id(application, method, path, status):
    answer = await ask(application, path, "mine", method=method)

    assert (answer.status, answer.headers["x-request-id"]) == (status, "mine")
    assert len((await ask(application, path, method=method)).headers["x-request-id"]) == 16


async def test_redirects_and_pages_return_none(application):
    for path in ("/healthz", "/absent", "/a/b", "/apiary/x"):
        assert "x-request-id" not in (await ask(application, path, "mine")).headers


async def test_shared_refusals_keep_no_id(application):
    """The answer of admission control is ready-made."""
    application.press(10**6)

    refused = [await ask(application, LINKS, str(n)) for n in range(4)]

    assert [answer.status for answer in refused] == [503] * 4
    assert [answer.headers["x-request-id"] for answer in refused] == ["0", "1", "2", "3"]


async def test_failure_is_named_by_the_request(application):
    def fails(*_):
        raise RuntimeError("a bug")

    application.services.authenticator.was_valid = fails
    with logged("app.web.rsgi") as lines:
        answer = await ask(application, LINKS, "mine")

    assert json.loads(answer.body)["trace_id"] == "mine"
    [line] = lines
    assert line["request_id"] == "mine"
    assert "trace_id" not in line
    assert request_id.get() == ""


async def test_failure_is_named_by_the_trace_if_there_is_one(application):
    def fails(*_):
        raise RuntimeError("a bug")

    application.services.authenticator.was_valid = fails
    token = trace_id.set(0xABC)
    try:
        with logged("app.web.rsgi") as lines:
            answer = await ask(application, LINKS, "mine")
    finally:
        trace_id.reset(token)

    expected = f"{0xABC:032x}"
    assert json.loads(answer.body)["trace_id"] == expected
    [line] = lines
    assert (line["trace_id"], line["request_id"]) == (expected, "mine")


async def test_failed_redirect_has_an_id(application):
    async def fails(*_, **__):
        raise RuntimeError("a bug")

    application.services.redirects.answer = fails
    answer = await ask(application, "/absent")

    assert len(json.loads(answer.body)["trace_id"]) == 16


def test_log_line_of_recorded_work_names_its_span():
    with logged("tests.ids") as lines, on_behalf_of([Origin(0xABC, 0xDEF, at=1.0)]):
        logging.getLogger("tests.ids").warning("one")
        with on_behalf_of([]):
            logging.getLogger("tests.ids").warning("two")

    assert (lines[0]["trace_id"], lines[0]["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert not {"trace_id", "span_id", "request_id"} & lines[1].keys()
    assert origin() is None
