"""Reads bodies, and the problem that an answer holds, so that a dialect can say it in its own shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from app.web import errors, i_json
from app.web import headers as fields
from app.web.request import Request
from app.web.response import SECURITY_HEADERS, Response
from app.web.schemas import Problem

PROBLEM_TYPE = ("content-type", "application/problem+json")
_decode = msgspec.json.Decoder(Problem).decode
# What each answer sets by itself.
_OWN = {"content-type", *(name for name, _ in SECURITY_HEADERS)}
T = TypeVar("T")


def problem_in(response: Response) -> Problem | None:
    """Return the problem of this service that *response* is; None if it is another answer."""
    if PROBLEM_TYPE not in response.headers:
        return None
    try:
        return _decode(response.body)
    except msgspec.ValidationError:  # it is in the shape of its dialect already
        return None


def kept_headers(response: Response) -> Sequence[tuple[str, str]]:
    """Return the headers of the problem *response* that mean the same in any shape, such as Retry-After."""
    return [(name, value) for name, value in response.headers if name not in _OWN]


def message_of(problem: Problem) -> str:
    """Return what *problem* says, in one sentence or a few."""
    return f"{problem.title}: {problem.detail}" if problem.detail else problem.title


def is_plain(request: Request) -> bool:
    """Is the body of *request* sent as it is?"""
    return fields.is_plain(request.headers.get("content-encoding", ""))


def json_body(request: Request, schema: type[T]) -> T | Response:
    """Return the body as *schema*, or the answer that refuses it. Raises as `app.web.i_json.read` does."""
    if not fields.is_json(request.headers.get("content-type", "")):
        return errors.not_json()
    if not is_plain(request):
        return errors.encoded()
    return i_json.read(request.body, schema)
