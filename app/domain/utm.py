"""
The UTM parameters of a target: five parameters of its query that web analytics read.

They are part of `long_url` and stored nowhere else: `shown` reads them there, `merged` writes them there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote_plus

from app.domain.errors import FieldError, InvalidInput
from app.domain.link import LinkFields
from app.domain.rules import text_problem

# `utm_id` and those of a single vendor are parameters like any other.
NAMES = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
MAX_LENGTH = 255
_NONE: dict[str, str | None] = dict.fromkeys(NAMES)
_WITH_SERVER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def shown(long_url: str) -> Mapping[str, str | None]:
    """
    Return the UTM parameters of *long_url*, by name; the first of several with one name.

    None: there is none, or one that `merged` would not write: empty, unprintable, or too long.
    """
    # Most targets have none. A name may be written with escapes.
    if "?" not in long_url or ("utm_" not in long_url and "%" not in long_url):
        return _NONE
    found: dict[str, str] = {}
    for parameter in _parts(long_url)[1]:
        name, _, value = parameter.partition("=")
        found.setdefault(unquote_plus(name), value)
    return _NONE | {name: _readable(found[name]) for name in found.keys() & _NONE.keys()}


def merged(long_url: str, wanted: Mapping[str, str | None]) -> str:
    """
    Return *long_url*, canonical or as it is typed, with the UTM parameters *wanted*; None removes one.

    A parameter keeps its place, once; new ones are the last of the query. What already says what is wanted
    stays as it is, byte for byte.

    Raises:
        InvalidInput: a value cannot be one, or the target has no query that a server reads.
    """
    present = shown(long_url)
    missing = {name: value for name, value in wanted.items() if value is None or value != present[name]}
    errors = [
        FieldError(name, "utm_invalid", problem)
        for name, value in missing.items()
        if value is not None and (problem := _problem(value, long_url)) is not None
    ]
    if errors:
        raise InvalidInput(errors)
    for name in NAMES:
        if name in missing:
            long_url = _with(long_url, name, missing[name])
    return long_url


def patched(fields: LinkFields, patch: Mapping[str, Any]) -> LinkFields:
    """
    Return *fields* with those of *patch* in their place, which may name UTM parameters as well.

    Raises:
        InvalidInput: as `merged`.
    """
    wanted = {name: value for name, value in patch.items() if name in _NONE}
    if not wanted:
        return replace(fields, **patch)
    changed = replace(fields, **{name: value for name, value in patch.items() if name not in wanted})
    return replace(changed, long_url=merged(changed.long_url, wanted))


def _with(long_url: str, name: str, value: str | None) -> str:
    path, parameters, fragment = _parts(long_url)
    is_named = [unquote_plus(one.partition("=")[0]) == name for one in parameters]
    if value is None and True not in is_named:
        return long_url
    at = is_named.index(True) if True in is_named else len(parameters)
    kept = [one for one, named in zip(parameters[at:], is_named[at:], strict=True) if not named]
    written = [] if value is None else [f"{name}={quote(value, safe='')}"]
    query = "&".join([*parameters[:at], *written, *kept])
    return f"{path}{'?' if query else ''}{query}{fragment}"


def _parts(long_url: str) -> tuple[str, list[str], str]:
    """Return what is before the query, the parameters of that, and the fragment with its mark."""
    target, mark, fragment = long_url.partition("#")
    path, _, query = target.partition("?")
    query = query.rstrip("&")
    return path, query.split("&") if query else [], mark + fragment


def _readable(written: str) -> str | None:
    value = unquote_plus(written)
    return value if value and text_problem(value, MAX_LENGTH) is None else None


def _problem(value: str, long_url: str) -> str | None:
    if not value:
        return "is empty; null stands for none"
    if not _WITH_SERVER.match(long_url):
        return "needs a target with a server, as in https://example.com"
    return text_problem(value, MAX_LENGTH)
