"""Conditional requests (RFC 9110 §13): what If-Match and If-None-Match say about versions."""

from __future__ import annotations

import re

from app.domain.errors import FieldError, InvalidInput
from app.web import patterns

_ETAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_LIST = re.compile(rf"[ \t,]*{_ETAG}(?:[ \t]*,[ \t,]*{_ETAG})*[ \t,]*")
_ONE = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_VERSION = re.compile(r"[1-9][0-9]{0,15}")
# For the OpenAPI document. "*" stands apart: it is no element of a list.
SCHEMA = {"type": "string", "anyOf": [{"const": "*"}, {"pattern": patterns.ETAGS}]}


def if_match(value: str | None) -> frozenset[int] | None:
    """
    Return the versions that a change may replace; None: whichever is current.

    The comparison is strong: a weak tag matches no version, like a tag of something else.

    Raises:
        InvalidInput: *value* is not readable.
    """
    return None if value is None else _versions("If-Match", value, weak=False)


def if_none_match(value: str | None) -> frozenset[int] | None:
    """
    Return the versions that need not be sent again; None: every one. The comparison is weak.

    Raises:
        InvalidInput: *value* is not readable.
    """
    return frozenset() if value is None else _versions("If-None-Match", value, weak=True)


def _versions(field: str, value: str, *, weak: bool) -> frozenset[int] | None:
    if value.strip(" \t") == "*":
        return None
    if _LIST.fullmatch(value) is None:
        code = f"{field.lower().replace('-', '_')}_malformed"
        message = 'must be * or ETags of this link, as in "3" or "3", "4"'
        raise InvalidInput([FieldError(field, code, message)])
    tags = _ONE.findall(value)
    return frozenset(int(tag) for mark, tag in tags if (weak or not mark) and _VERSION.fullmatch(tag))
