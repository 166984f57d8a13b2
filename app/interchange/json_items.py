"""JSON documents and JSON lines as rows: objects, flattened to dotted names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Never

from app.interchange.errors import FileRefused, Unreadable

# Where APIs put the list of links inside an answer.
_CONTAINERS: tuple[tuple[str, ...], ...] = (
    ("shortUrls", "data"),
    ("data",),
    ("links",),
    ("result",),
    ("items",),
)
# What an answer says when there are more links than it holds.
_MORE: tuple[tuple[str, ...], ...] = (
    ("nextPageToken",), ("pagination", "next"), ("pagination", "search_after"), ("cursor",), ("next",),
)  # fmt: skip
_TOTALS: tuple[tuple[str, ...], ...] = (
    ("total",),
    ("shortUrls", "pagination", "totalItems"),
    ("pagination", "total"),
)
_MAX_DEPTH = 8


class _Object(dict[str, object]):
    """A JSON object; `repeated` is a name that it has twice."""

    repeated: str | None = None


def decoded(text: str) -> object:
    """
    Return the JSON value in *text*.

    Raises:
        Unreadable: it is none, or holds what JSON has no meaning for (NaN).
    """
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        message = f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise Unreadable("json_malformed", message) from None
    except (RecursionError, ValueError) as error:
        raise Unreadable("json_malformed", f"is not JSON: {error}") from None


def items(document: object) -> tuple[list[object], str | None]:
    """
    Return the links of *document*, and a note if it says that it is only a part of them.

    Raises:
        FileRefused: it holds no list of objects in a known place.
    """
    if isinstance(document, list):
        return document, None
    if isinstance(document, _Object) and document.repeated is not None:
        raise FileRefused(f"the file is JSON that has ‘{document.repeated}’ twice")
    for path in _CONTAINERS:
        found = _at(document, path)
        if isinstance(found, list):
            return found, _partial(document, len(found))
        # YOURLS numbers its links instead: {"link_1": {…}, "link_2": {…}}.
        if isinstance(found, dict) and found and all(isinstance(value, dict) for value in found.values()):
            return list(found.values()), _partial(document, len(found))
    if isinstance(document, dict):
        return [document], None
    message = "the file is JSON, but holds no list of links"
    raise FileRefused(message)


def flattened(item: object) -> Mapping[str, object]:
    """
    Return the members of *item* by name; those of objects inside it by dotted name.

    Raises:
        Unreadable: it is no object, has a name twice, or is nested too deeply.
    """
    if not isinstance(item, dict):
        raise Unreadable("json_no_object", "is not a JSON object")
    flat: dict[str, object] = {}
    for name, value in _members(item, "", 0):
        if name in flat:
            raise Unreadable("json_repeated", f"has ‘{name}’ twice")
        flat[name] = value
    return flat


def _members(item: dict[str, object], prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    if isinstance(item, _Object) and item.repeated is not None:
        raise Unreadable("json_repeated", f"has ‘{prefix}{item.repeated}’ twice")
    if depth > _MAX_DEPTH:
        raise Unreadable("json_too_deep", "is nested too deeply")
    for name, value in item.items():
        if isinstance(value, dict) and value:
            yield from _members(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def _partial(document: object, held: int) -> str | None:
    for path in _MORE:
        if _at(document, path):
            return f"the file is one page of an answer: it holds {held:,} links, and says that there are more"
    for path in _TOTALS:
        total = _at(document, path)
        if isinstance(total, int) and total > held:
            return f"the file is one page of an answer: it holds {held:,} of {total:,} links"
    return None


def _at(document: object, path: tuple[str, ...]) -> object:
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def _object(pairs: list[tuple[str, object]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        made.repeated = counts.most_common(1)[0][0]
    return made


def _refuse_constant(name: str) -> Never:
    message = f"{name} is no JSON value"
    raise ValueError(message)


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
