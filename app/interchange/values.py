"""
Values: what one cell or JSON value says, or `Unreadable` with the reason.

A converter takes the text of a CSV cell or a JSON value, and returns None where the value is absent:
an empty cell, `null`, an empty list. It never repairs: a value that two readings fit is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Literal
from urllib.parse import unquote

from app.domain.link import MAX_MAX_VISITS
from app.interchange.errors import Unreadable
from app.interchange.json_items import decoded

Converter = Callable[[object], object]

# How databases and tools write that there is no value.
_NULL = frozenset({"", "null", "none", "nil", "\\n"})
_NEVER = _NULL | {"0", "never", "0000-00-00 00:00:00", "0000-00-00"}
# PostgreSQL copies t and f into a CSV.
TRUE, FALSE = (
    frozenset({"true", "1", "yes", "t", "y", "on"}),
    frozenset({"false", "0", "no", "f", "n", "off"}),
)
# What Go and .NET write for a time that was never set, and databases for one that never comes.
_UNSET = re.compile(r"0001-01-01[T ]00:00:00")
_FOREVER = re.compile(r"9999-12-31([T ].*)?\Z|infinity\Z", re.IGNORECASE)
_DATE_TIME = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[T ](?P<time>\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)"
    r"( ?(?P<zone>Z|UTC|GMT|[+-]\d{2}(:?\d{2})?))?\Z",
    re.IGNORECASE | re.ASCII,
)
# Unix seconds and milliseconds of the years 2000 to 9998 share no number.
_MIN_S, _MAX_S = 946_684_800, 253_370_764_800
# A host has a dot or a port, so `blog/post` is a path of two segments and no URL.
_SHORT_URL = re.compile(
    r"(https?://(?P<named>[^/?#\s]+)|(?P<bare>[^/?#\s:]*[.:][^/?#\s]*))(?P<path>/.*)?\Z",
    re.IGNORECASE | re.DOTALL,
)
_ONE_SEGMENT = re.compile(r"/[A-Za-z0-9_-]+/?\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ShortLink:
    """What a short link in a file says: its slug, and its host if the value is a URL."""

    slug: str
    host: str | None = None


def text(value: object) -> str | None:
    """Return a text exactly as it is, spaces at its ends included."""
    if value is None or isinstance(value, str):
        return value or None
    raise Unreadable("text_expected", "must be text")


def url(value: object) -> str | None:
    """Return a URL; the rules of targets judge it."""
    found = text(value)
    return found.strip(" \t") or None if found else None


def slug(value: object) -> ShortLink | None:
    """Return a slug that stands alone; YOURLS numbers its links."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ShortLink(str(value))
    found = url(value)
    return ShortLink(found) if found else None


def path(value: object) -> ShortLink | None:
    """Return a slug that may stand between slashes; its domain judges whether it has too many segments."""
    found = url(value)
    if not found:
        return None
    name = found.removeprefix("/").removesuffix("/")
    if not name:
        raise Unreadable("slug_missing", "is the path of no short link")
    if "?" in name or "#" in name:
        raise Unreadable("slug_malformed", "is a path with a query or a fragment")
    try:
        return ShortLink(unquote(name, errors="strict"))
    except UnicodeDecodeError:
        raise Unreadable("slug_malformed", "has escapes that are no UTF-8") from None


def short_link(value: object) -> ShortLink | None:
    """Return slug and host of a short URL, with or without its scheme; a slug alone is taken as one."""
    if isinstance(value, list):
        return _one_of(value)
    found = url(value)
    if not found:
        return None
    match = _SHORT_URL.match(found)
    if match is None:
        return path(found)
    named = path(match["path"] or "/")
    return ShortLink(named.slug, (match["named"] or match["bare"]).casefold()) if named is not None else None


def looks_short(value: object) -> bool:
    """Could *value* be a short URL or its path, by its form alone?"""
    if not isinstance(value, str):
        return False
    found = value.strip()
    match = _SHORT_URL.match(found)
    return _ONE_SEGMENT.match((match["path"] or "") if match else found) is not None


def _one_of(value: list[object]) -> ShortLink | None:
    if len(value) > 1:
        raise Unreadable("slug_contradicts", f"names {len(value)} short links: import one of them")
    return short_link(value[0]) if value else None


def tags(separators: str) -> Converter:
    """
    Return a converter for tags: JSON lists of names or of objects with a `name`, and text.

    Args:
        separators: each of these may part the tags of a text; two kinds in one text are refused.
    """

    def convert(value: object) -> tuple[str, ...] | None:
        if isinstance(value, list):
            return _names(value)
        found = text(value)
        if found is None or found.casefold() in _NULL:
            return None
        if found.startswith("[") and found.endswith("]"):
            return json_tags(found)
        used = [mark for mark in separators if mark in found]
        if len(used) > 1:
            marks = " and ".join(f"‘{mark}’" for mark in used)
            raise Unreadable("tags_ambiguous", f"hold both {marks}: which one parts them is not clear")
        parts = found.split(used[0]) if used else [found]
        return tuple(tag for part in parts if (tag := part.strip())) or None

    return convert


def json_tags(value: object) -> tuple[str, ...] | None:
    """Return tags that are a JSON list, or the text of one: every tag as it is."""
    if isinstance(value, list):
        return _names(value)
    found = text(value)
    if found is None:
        return None
    try:
        listed = decoded(found)
    except Unreadable:
        listed = None
    if not isinstance(listed, list):
        raise Unreadable("tags_unreadable", 'must be a JSON list, as in ["a","b"]')
    return _names(listed)


def json_aliases(value: object) -> tuple[str, ...] | None:
    """Return aliases as exports or the API list them: slugs, those of further domains behind their host."""
    listed = decoded(value) if isinstance(value, str) else value
    if not isinstance(listed, list):
        raise Unreadable("aliases_unreadable", 'must be a JSON list, as in ["a","go.example/b"]')
    shown = [f"{one.get('domain')}/{one.get('slug')}" if isinstance(one, Mapping) else one for one in listed]
    if not all(isinstance(one, str) for one in shown):
        raise Unreadable("aliases_unreadable", 'must be a JSON list, as in ["a","go.example/b"]')
    return tuple(map(str, shown)) or None


def tags_0_1(value: object) -> tuple[str, ...] | None:
    """Return tags as version 0.1 wrote and read them: parted by commas and bars."""
    found = text(value)
    parts = (found or "").replace("|", ",").split(",")
    return tuple(tag for part in parts if (tag := part.strip())) or None


def _names(listed: list[object]) -> tuple[str, ...] | None:
    names = [item.get("name") if isinstance(item, Mapping) else item for item in listed]
    if not all(isinstance(name, str) for name in names):
        raise Unreadable("tags_unreadable", "must be a list of names")
    return tuple(str(name) for name in names) or None


def moment(*, zone: tzinfo | None = None, unix: Literal["s", "ms", "either"] | None = None) -> Converter:
    """
    Return a converter for times; 0, empty, `null` and `never` are absent.

    Args:
        zone: of a time that names none, where the format's documentation says so.
        unix: the unit of a bare number; `either` tells seconds from milliseconds by size.
    """

    def convert(value: object) -> datetime | None:
        if value is None or (isinstance(value, str) and value.strip().casefold() in _NEVER):
            return None
        if isinstance(value, str) and _UNSET.match(value.strip()):
            return None
        number = _integer(value)
        if number is not None:
            return _from_unix(number, unix)
        if not isinstance(value, str) or not (match := _DATE_TIME.match(value.strip())):
            raise Unreadable(
                "time_unreadable", "must be a date with time and zone, as in 2030-01-31T12:00:00Z"
            )
        named = match["zone"]
        if named is None and zone is None:
            raise Unreadable("time_without_zone", "must name its time zone, as in 2030-01-31T12:00:00Z")
        offset = "" if named is None else "+00:00" if named.isalpha() else named
        try:
            found = datetime.fromisoformat(f"{match['date']}T{match['time']}{offset}")
            if found.tzinfo is None:
                found = found.replace(tzinfo=zone)
            if found.tzinfo is not UTC:
                found = found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise Unreadable("time_unreadable", "is no date that exists") from None
        return None if found == _EPOCH else found

    return convert


def end(*, zone: tzinfo | None = None, unix: Literal["s", "ms", "either"] | None = None) -> Converter:
    """Return a converter as `moment` does, to which the end of all days is absent: it never comes."""
    read = moment(zone=zone, unix=unix)

    def convert(value: object) -> object:
        return None if isinstance(value, str) and _FOREVER.match(value.strip()) else read(value)

    return convert


def _from_unix(number: int, unix: Literal["s", "ms", "either"] | None) -> datetime | None:
    if number == 0:
        return None
    if unix is None:
        raise Unreadable("time_unreadable", "is a number, and the format does not say what it counts")
    is_seconds = unix == "s" or (unix == "either" and number < _MIN_S * 1000)
    scale = 1 if is_seconds else 1000
    if not _MIN_S * scale <= number < _MAX_S * scale:
        unit = {"s": "unix seconds", "ms": "unix milliseconds", "either": "unix time"}[unix]
        raise Unreadable("time_out_of_range", f"must be {unix and unit} of the years 2000 to 9998")
    seconds, rest = divmod(number, scale)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * (1_000_000 // scale) % 1_000_000)


def number(value: object) -> int | None:
    """Return a whole number that is not negative."""
    if value is None or (isinstance(value, str) and value.strip().casefold() in _NULL):
        return None
    found = _integer(value)
    if found is None or not 0 <= found <= MAX_MAX_VISITS:
        raise Unreadable("number_unreadable", f"must be a whole number of 0 to {MAX_MAX_VISITS}")
    return found


def flag(value: object) -> bool | None:
    """Return true or false."""
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().casefold()
    if word in _NULL:
        return None
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise Unreadable("flag_unreadable", "must be true or false")


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None
    return value if isinstance(value, int) else None
