"""An HTTP answer as plain data, and the one shape of every error: problem+json (RFC 9457)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from app.domain.errors import FieldError, HopgateError
from app.web.schemas import FieldProblem, LinkDocument, Problem

Headers = Sequence[tuple[str, str]]

# On every API answer: it is data for one caller, and no browser may run or frame it.
_API_HEADERS: Headers = [
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
]
_encode = msgspec.json.Encoder().encode
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_VALUE = re.compile(r"[\x20-\x7e\t]*\Z")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """
    What goes back to the client.

    `forward_query`: the request's query string is appended to the `location` header.
    `is_visit`: it is a redirect of a link; given to a GET, it is one click.
    `metered_version`: not 0 if it may be given only for a visit of that link, which is at this version.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    forward_query: bool = False
    is_visit: bool = False
    metered_version: int = 0


def json_answer(status: int, document: object, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """Return *document* as JSON."""
    return Answer(status, [("content-type", "application/json"), *_API_HEADERS, *headers], _encode(document))


def empty_answer(status: int, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """Return an answer without a body."""
    return Answer(status, [*_API_HEADERS, *headers])


def problem(
    status: int,
    code: str,
    title: str,
    *,
    detail: str = "",
    errors: Sequence[FieldError] = (),
    headers: Iterable[tuple[str, str]] = (),
    link: LinkDocument | None = None,
    trace_id: str | None = None,
) -> Answer:
    """
    Return an error.

    Args:
        code: stable and short, for programs; `title` is the same in words, `detail` this case.
        errors: what is wrong, field by field.
        link: the link that stands in the way.
        trace_id: what finds this failure in the log.
    """
    document = Problem(
        type=f"urn:hopgate:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=detail,
        errors=[FieldProblem(e.field, e.code, e.message) for e in errors],
        link=link,
        trace_id=trace_id,
    )
    return Answer(
        status, [("content-type", "application/problem+json"), *_API_HEADERS, *headers], _encode(document)
    )


class UnsendableHeader(HopgateError):
    """A header that the server would drop without a word. A bug of ours, never the client's."""


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """
    Make sure that every header will reach the client as it is.

    Raises:
        UnsendableHeader: granian would leave it out, turning a redirect into an answer
            without a target.
    """
    for name, value in headers:
        if not _NAME.match(name):
            message = f"header {name!r} cannot be sent"
            raise UnsendableHeader(message)
        check_value(name, value)


def check_value(name: str, value: str) -> None:
    """Make sure that *value* of header *name* will, or raise UnsendableHeader as `check_headers` does."""
    if not _VALUE.match(value):
        message = f"header {name!r} cannot be sent"
        raise UnsendableHeader(message)
