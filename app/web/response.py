"""An HTTP response as plain data, and what makes a header sendable."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from app.domain.errors import HopgateError

Headers = Sequence[tuple[str, str]]

# On every response. A redirect has no body, and carries only this one of them.
NO_SNIFFING = ("x-content-type-options", "nosniff")
# The header with the rules for crawlers.
ROBOTS = "x-robots-tag"
# On every response but redirects: it is data for one client, and no browser may run or frame it.
SECURITY_HEADERS: Headers = [
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    NO_SNIFFING,
]
_encode = msgspec.json.Encoder().encode
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
# Of the name of a file: what a quoted string escapes, what it cannot have, and what RFC 8187 leaves as it is.
_QUOTED, _UNPRINTABLE, _ATTRIBUTE = re.compile(r'["\\]'), re.compile(r"[^ -~]"), "!#$&+-.^_`|~"
_VALUE = re.compile(r"[\x20-\x7e\t]*\Z")


class Response(msgspec.Struct, frozen=True, gc=False):
    """
    One response.

    `forward_query`: append the request's query string to the `location` header.
    `override_query`: in place of its parameters of the same names.
    `is_visit`: it is the redirect of a link; sent in reply to a GET, it counts as one click.
    `stands_for`: the status that it would have if link and domain had no page in its place, else 0.
    `exhausted`: what is sent instead once the visit quota is spent, if the link says so.
    `stream`: the body in parts, in place of `body`.
    `metered_version`: the link's version if each such response takes a visit of the link's quota, else 0;
    `spends`: the slug of the link that has the quota, if the visited one is an alias.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    forward_query: bool = False
    override_query: bool = False
    is_visit: bool = False
    metered_version: int = 0
    stands_for: int = 0
    stream: AsyncGenerator[bytes, None] | None = None
    exhausted: Response | None = None
    spends: str | None = None


def json_response(
    status: int,
    document: object,
    headers: Iterable[tuple[str, str]] = (),
    *,
    media_type: str = "application/json",
) -> Response:
    """Return *document* as JSON."""
    return Response(status, [("content-type", media_type), *SECURITY_HEADERS, *headers], _encode(document))


def text_response(status: int, text: bytes, media_type: str) -> Response:
    """Return *text* as it is."""
    return Response(status, [("content-type", media_type), *SECURITY_HEADERS], text)


def shown_as(file: str) -> tuple[str, str]:
    """
    Return the header of an answer that a browser shows, and saves as *file*.

    Names beyond ASCII stand there twice (RFC 6266 4.3, RFC 8187). Slashes become hyphens: a browser would
    keep what follows the last one.
    """
    name = file.replace("/", "-")
    plain = _QUOTED.sub(r"\\\g<0>", _UNPRINTABLE.sub("_", name))
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe=_ATTRIBUTE)}"
    return ("content-disposition", f'inline; filename="{plain}"{extended}')


def empty_response(status: int, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return a response without a body."""
    return Response(status, [*SECURITY_HEADERS, *headers])


def closing(response: Response) -> Response:
    """Return *response* as the last one of its connection: its request was not read to the end."""
    mark = ("connection", "close")
    return response if mark in response.headers else replace(response, headers=[*response.headers, mark])


class UnsendableHeader(HopgateError):
    """A header that granian would drop silently. A bug of this program, never the client's."""


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """
    Check that every header will reach the client unchanged.

    Raises:
        UnsendableHeader: granian would drop it, and a redirect would have no target.
    """
    for name, value in headers:
        if not _NAME.match(name):
            message = f"header {name!r} cannot be sent"
            raise UnsendableHeader(message)
        check_value(name, value)


def check_value(name: str, value: str) -> None:
    """Check *value* of the header *name*; raises UnsendableHeader as `check_headers` does."""
    if not _VALUE.match(value):
        message = f"header {name!r} cannot be sent"
        raise UnsendableHeader(message)
