"""Answers in the formats of YOURLS: JSON, JSONP, XML, and `simple`, which is one line of text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape

import msgspec

from app.domain.rules import UNPRINTABLE
from app.web.response import SECURITY_HEADERS, Response

FORMATS = ("json", "jsonp", "xml", "simple")
DEFAULT_FORMAT = "xml"
# A function, or what an object or an array holds: nothing that runs by itself.
_CALLBACK = re.compile(r"[A-Za-z_$][\w$]{0,99}(?:\.[A-Za-z_$][\w$]{0,99}|\[[0-9]{1,20}\]){0,9}\Z", re.ASCII)
_MAX_CALLBACK = 200
_encode = msgspec.json.Encoder().encode
_UTF_8 = "; charset=utf-8"


def is_callback(text: str) -> bool:
    """Is *text* the name of a function, and nothing else?"""
    return len(text) <= _MAX_CALLBACK and _CALLBACK.match(text) is not None


def output(
    document: Mapping[str, Any],
    simple: str,
    *,
    status: int,
    shape: str,
    callback: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """Return *document* in the format *shape*, or *simple* if that is the format."""
    match shape:
        case "json":
            media_type, body = "application/json", _encode(document)
        case "jsonp":
            # The comment keeps the answer from being read as anything but a script.
            media_type, body = (
                "application/javascript",
                b"/**/%b(%b)" % (callback.encode(), _script(document)),
            )
        case "xml":
            media_type, body = "application/xml", _xml(document)
        case "simple":
            media_type, body = "text/plain", UNPRINTABLE.sub(" ", simple).encode()
        case _:
            raise ValueError(shape)
    return Response(status, [("content-type", media_type + _UTF_8), *SECURITY_HEADERS, *headers], body)


def _script(document: Mapping[str, Any]) -> bytes:
    # Older scripts end a line at these two, and HTML a script at `</script`.
    text = _encode(document).decode()
    for character in "\u2028\u2029<":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def _xml(document: Mapping[str, Any]) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    return f"{head}<result>\n{_elements(document, 1)}</result>\n".encode()


def _elements(document: Mapping[str, Any], depth: int) -> str:
    indent = "\t" * depth
    parts = []
    for name, value in document.items():
        if isinstance(value, Mapping):
            inner = f"\n{_elements(value, depth + 1)}{indent}"
        else:
            # XML has no way to write a control character.
            inner = escape(UNPRINTABLE.sub(" ", str(value)))
        parts.append(f"{indent}<{name}>{inner}</{name}>\n")
    return "".join(parts)
