r"""
Targets: one parser decides what is stored, and what is stored is what is emitted.

The parser is ada, the WHATWG URL parser that Node and browsers' test suites hold to; a
second opinion (urlsplit, a regular expression) is how `http:\\evil` and `java\nscript:`
get through elsewhere. This is the one module of the domain that imports a library: the
rules are about what that parser saw. See docs/adr/0001.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import can_ada

from app.domain.errors import FieldError, InvalidInput

MAX_LENGTH = 2048
MAX_HOST_LENGTH = 253

# The WHATWG parser forgives these by dropping or rewriting them; a user who sends them
# either made a mistake or hides something, so they are refused before parsing.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029\ufeff\ud800-\udfff]")
_SCHEME = re.compile(r"https?://[^/?#]", re.IGNORECASE)
# What a header may carry: granian drops a Location with anything else without a word.
_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+\Z")


def canonical(text: str, *, own_hosts: Collection[str]) -> str:
    """
    Return the canonical form of the URL *text*: pure printable ASCII, ready to be emitted.

    Args:
        text: what the user sent.
        own_hosts: lower-case host names under which this service is reached; a target
            there could loop.

    Raises:
        InvalidInput: with one error for the field `long_url`.
    """
    if not text:
        raise _invalid("url_empty", "must not be empty")
    if len(text) > MAX_LENGTH:
        raise _invalid("url_too_long", f"is {len(text)} characters, the most is {MAX_LENGTH}")
    if _FORBIDDEN.search(text):
        message = "must not contain spaces, control characters or backslashes"
        raise _invalid("url_forbidden_character", message)
    if not _SCHEME.match(text):
        raise _invalid("url_scheme", "must start with http:// or https:// and name a host")
    try:
        url = can_ada.parse(text)
    except ValueError:
        raise _invalid("url_malformed", "is not a valid URL") from None
    if url.username or url.password:
        raise _invalid("url_credentials", "must not contain a user name or password")
    _check_host(url.hostname, own_hosts)
    if url.port == "0":
        raise _invalid("url_port", "port 0 cannot be connected to")
    href: str = url.href
    if len(href) > MAX_LENGTH:
        raise _invalid(
            "url_too_long", f"is {len(href)} characters in canonical form, the most is {MAX_LENGTH}"
        )
    if not is_emittable(href):
        raise _invalid("url_malformed", "has no printable ASCII form")
    return href


def is_emittable(location: str) -> bool:
    """Can *location* stand in a header exactly as it is?"""
    return _PRINTABLE_ASCII.match(location) is not None


def _check_host(host: str, own_hosts: Collection[str]) -> None:
    if not host or len(host) > MAX_HOST_LENGTH:
        raise _invalid("url_host", f"must name a host of at most {MAX_HOST_LENGTH} characters")
    bare = host.removesuffix(".")
    if not host.startswith("[") and any(not 1 <= len(label) <= 63 for label in bare.split(".")):
        raise _invalid("url_host", "has an empty host label, or one over 63 characters")
    if bare.lower() in own_hosts:
        raise _invalid("url_own_host", "points back to this service")


def _invalid(code: str, message: str) -> InvalidInput:
    return InvalidInput([FieldError("long_url", code, message)])
