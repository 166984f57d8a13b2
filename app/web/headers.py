"""Reads request headers as RFC 9110 and RFC 9112 ask, from what granian shows of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

_OPTIONAL_SPACE = " \t"
# RFC 3986: reg-name, which an IPv4 address is too, and a port. An empty host is allowed.
_HOST = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|\[v[0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+\]"
    r"|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)


def read(headers: Any, names: Iterable[str], *, lists: Collection[str]) -> dict[str, str]:
    """
    Return those of *headers* that are in *names*.

    The lines of a header in *lists* are joined by commas (RFC 9110 §5.3).

    Raises:
        ValueError: a header cannot be read, or is sent twice although it has one value: programs on
            the way may have acted on the other one.
    """
    found = {}
    for name in names:
        if name in headers:
            require_readable(headers, name)
            values = headers.get_all(name)
            if len(values) > 1 and name not in lists:
                message = f"The header {name} must be sent once."
                raise ValueError(message)
            found[name] = ", ".join(values)
    return found


def require_readable(headers: Any, name: str) -> None:
    """
    Check that granian shows the value of header *name*.

    Raises:
        ValueError: it leaves out values that are not visible ASCII, and the handler would take such a
            header for a missing one.
    """
    if name in headers and headers.get(name) is None:
        message = f"The header {name} must be visible ASCII."
        raise ValueError(message)


def check_host(headers: Any, version: str) -> None:
    """
    Check that a request of HTTP *version* names one valid host (RFC 9112 §3.2).

    Raises:
        ValueError: it does not.
    """
    hosts = headers.get_all("host")
    if not hosts and "host" not in headers and version.startswith("1") and version != "1.1":
        return
    if len(hosts) != 1 or not _is_host(hosts[0]):
        message = "The request must have one Host header, with a host and perhaps a port."
        raise ValueError(message)


@lru_cache(maxsize=64)
def _is_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    if match is None or match[1] is None:
        return match is not None
    try:
        IPv6Address(match[1])
    except ValueError:
        return False
    return True


def elements(value: str) -> list[str]:
    """Return the elements of the list *value* without the empty ones (RFC 9110 §5.6.1)."""
    parts = (part.strip(_OPTIONAL_SPACE) for part in value.split(","))
    return [part for part in parts if part]


def credentials(value: str) -> tuple[str, str]:
    """Return the scheme of an Authorization header in lower case, and its token (RFC 9110 §11.4)."""
    scheme, _, token = value.partition(" ")
    return scheme.lower(), token.strip(" ")


def is_lines(content_type: str) -> bool:
    """Does *content_type* declare lines of JSON in UTF-8?"""
    return is_json(content_type, "application/x-ndjson")


def is_json(content_type: str, wanted: str = "application/json") -> bool:
    """Does *content_type* declare JSON in UTF-8, in the media type *wanted*?"""
    media_type, *parameters = content_type.split(";")
    if media_type.strip(_OPTIONAL_SPACE).lower() != wanted:
        return False
    for parameter in parameters:
        name, _, charset = parameter.strip(_OPTIONAL_SPACE).partition("=")
        if name.lower() == "charset" and charset.strip('"').lower() != "utf-8":
            return False
    return True


def is_plain(content_encoding: str) -> bool:
    """Does *content_encoding* leave the body as it is?"""
    return all(coding.lower() == "identity" for coding in elements(content_encoding))
