"""Reads the problem that an answer of this service holds, so that a dialect can say it in its own shape."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.web.response import SECURITY_HEADERS, Response
from app.web.schemas import Problem

PROBLEM_TYPE = ("content-type", "application/problem+json")
_decode = msgspec.json.Decoder(Problem).decode
# What each answer sets by itself.
_OWN = {"content-type", *(name for name, _ in SECURITY_HEADERS)}


def problem_in(response: Response) -> Problem | None:
    """Return the problem that *response* is; None if it is another answer."""
    return _decode(response.body) if PROBLEM_TYPE in response.headers else None


def kept_headers(response: Response) -> Sequence[tuple[str, str]]:
    """Return the headers of the problem *response* that mean the same in any shape, such as Retry-After."""
    return [(name, value) for name, value in response.headers if name not in _OWN]


def message_of(problem: Problem) -> str:
    """Return what *problem* says, in one sentence or a few."""
    return f"{problem.title}: {problem.detail}" if problem.detail else problem.title
