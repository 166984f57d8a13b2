"""
Whether a request prefers a page for people, or CSV, to a document for programs (RFC 9110 12.5.1).

Of pages, the front decides the same by itself (`pyext/front/src/accept.rs`); the tests of both read one
table of rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

# Characters of all lines together; no browser sends as many.
MAX_LENGTH = 1000
_WHOLE = 1000
_SPACE = " \t"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')
_WEIGHT = re.compile(r"([01])(?:\.([0-9]{0,3}))?")
# Whatever separates them is no part of a quoted string, which ends with the line if it has no other end.
_RANGES, _PARAMETERS = (re.compile(rf'(?:[^"{mark}]|"(?:[^"\\]|\\.)*+(?:"|\\?$))*+') for mark in (",", ";"))
_PAGE = ("text", "html")
_CSV = ("text", "csv")
_PROGRAM = (("application", "problem+json"), ("application", "json"))

# A weight in thousandths, and how exactly the media type was named.
_Match = tuple[int, int]
_NONE: _Match = (0, 0)


def wants_page(headers: Any) -> bool:
    """Do *headers*, as granian shows them, ask for HTML rather than JSON? Malformed ones do not."""
    lines: list[str] = headers.get_all("accept")
    return sum(map(len, lines)) <= MAX_LENGTH and _prefers_page(tuple(lines))


def wants_csv(lines: Sequence[str]) -> bool:
    """Do *lines*, those of `Accept`, ask for CSV rather than JSON? Malformed ones do not."""
    return sum(map(len, lines)) <= MAX_LENGTH and _prefers(lines, _CSV, _PROGRAM)


# Most clients send one of few values.
@lru_cache(maxsize=128)
def _prefers_page(lines: tuple[str, ...]) -> bool:
    return _prefers(lines, _PAGE, _PROGRAM)


def _prefers(lines: Sequence[str], wanted: tuple[str, str], others: Sequence[tuple[str, str]]) -> bool:
    ranges: list[tuple[str, str, int]] = []
    try:
        for line in lines:
            ranges += _ranges(line)
    except ValueError:
        return False
    best = _best(ranges, wanted)
    return best[0] > 0 and best > max(_best(ranges, own) for own in others)


def _best(ranges: Iterable[tuple[str, str, int]], own: tuple[str, str]) -> _Match:
    """The more exact range decides; of two that are alike, the greater weight."""
    exactness, weight = max(
        ((_exactness(kind, subtype, own), weight) for kind, subtype, weight in ranges), default=_NONE
    )
    return (weight, exactness) if exactness else _NONE


def _exactness(kind: str, subtype: str, own: tuple[str, str]) -> int:
    if (kind, subtype) == ("*", "*"):
        return 1
    if kind != own[0]:
        return 0
    return 2 if subtype == "*" else 3 * (subtype == own[1])


def _ranges(line: str) -> Iterator[tuple[str, str, int]]:
    """Give the ranges of *line* that a document in UTF-8 is in, with their weights; raises ValueError."""
    for element in _split(line, _RANGES):
        if not element:
            continue
        media, *parameters = _split(element, _PARAMETERS)
        kind, slash, subtype = media.partition("/")
        if not slash or not _TOKEN.fullmatch(kind) or not _TOKEN.fullmatch(subtype):
            raise ValueError(media)
        weight: int | None = None
        is_ours = True
        for parameter in filter(None, parameters):
            name, _, value = parameter.partition("=")
            if not _TOKEN.fullmatch(name) or not (_TOKEN.fullmatch(value) or _QUOTED.fullmatch(value)):
                raise ValueError(parameter)
            if weight is not None:
                continue
            if name.lower() == "q":
                weight = _weight(value)
            else:
                is_ours &= (name.lower(), value.strip('"').lower()) == ("charset", "utf-8")
        if is_ours:
            yield kind.lower(), subtype.lower(), _WHOLE if weight is None else weight


def _split(text: str, part: re.Pattern[str]) -> Iterator[str]:
    """Give the parts of *text* between separators that are not quoted."""
    position = 0
    while position <= len(text):
        found = part.match(text, position)
        if found is None:
            raise ValueError(text)
        yield found[0].strip(_SPACE)
        position = found.end() + 1


def _weight(text: str) -> int:
    found = _WEIGHT.fullmatch(text)
    weight = int(found[1] + (found[2] or "").ljust(3, "0")) if found else -1
    if not 0 <= weight <= _WHOLE:
        raise ValueError(text)
    return weight
