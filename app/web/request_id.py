"""The id by which a client and the log name one request: the client's, or a new one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from app.concurrency.origins import request_id, trace_id
from app.web.response import Response

HEADER = "x-request-id"
_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")


def read_request_id(headers: Any, new_id: Callable[[], str]) -> str:
    """Return the client's id, if it sends one of up to 128 visible ASCII characters, else a new one."""
    return given_request_id(headers) or new_id()


def given_request_id(headers: Any) -> str:
    """Return the client's id; empty if it sends none that counts."""
    values: list[str] = headers.get_all(HEADER)
    return values[0] if len(values) == 1 and _ID.match(values[0]) else ""


def with_request_id(response: Response, request: str) -> Response:
    """Return *response* with the id of its request."""
    return replace(response, headers=[*response.headers, (HEADER, request)])


def failure_id(new_id: Callable[[], str]) -> str:
    """Return what names a failure of the request under way: its trace, or its id, or a new one."""
    trace = trace_id.get()
    return f"{trace:032x}" if trace else request_id.get() or new_id()
