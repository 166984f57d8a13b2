"""
What a file is: a table, a list of URLs, JSON lines or a JSON document, and of which format.

Recognised or refused: a file that two readings fit is refused, and the message says how to name one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.interchange import csv_records, json_items
from app.interchange.columns import Column, normalised
from app.interchange.csv_records import DELIMITERS, delimiter_name
from app.interchange.dialect import Dialect, candidates
from app.interchange.errors import FileRefused, Unreadable
from app.interchange.generic import GENERIC, GENERIC_BY_NAME
from app.interchange.hopgate_format import HOPGATE, HOPGATE_0_1
from app.interchange.inert import terminal_safe
from app.interchange.lines import Line, Lines
from app.interchange.rivals import RIVALS
from app.interchange.values import url

URLS = "urls"
_LIST = Dialect(name=URLS, signatures=(), columns={"longurl": Column("long_url", url)}, slug_is_optional=True)
_NAMED = {dialect.name: dialect for dialect in (HOPGATE, HOPGATE_0_1, *RIVALS)}
# What a file can be called.
DIALECTS = (*_NAMED, GENERIC.name, URLS)

# What no text has: half of a surrogate pair stands for a byte of another encoding.
BROKEN = re.compile("[\x00\ud800-\udfff]")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S", re.IGNORECASE)
_SEPARATOR = re.compile(r'\s*"?sep=(?P<mark>.?)"?[\r\n]*\Z', re.IGNORECASE)
_JSON = ("{", "[")
_NOTHING = " ,;\t|\r\n"
# So many lines of a list are looked at before it is taken for one.
_SAMPLE = 100
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Table:
    """CSV; without a delimiter it has one column and says nothing of a delimiter."""

    names: tuple[str, ...]
    delimiter: str | None


@dataclass(frozen=True, slots=True)
class UrlList:
    """One URL a line; `sample` are the lines that were read already."""

    sample: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One object a line; `first` was read already."""

    first: Line


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON value; `note` says so if it is only a part of a longer answer."""

    items: Sequence[object]
    note: str | None


Shape = Table | UrlList | JsonLines | Document


def is_left_out(text: str) -> bool:
    """Is a line that holds *text* blank, or a comment?"""
    return not text or text.startswith("#")


def recognise(
    lines: Lines, wanted: str | None, ignored: frozenset[str], longest_document: int | None = None
) -> tuple[Dialect, Shape]:
    """
    Return what *lines* are; their head is read then.

    Args:
        wanted: the format that the operator named.
        ignored: names of columns, normalised, that no format is recognised by.
        longest_document: see `Reading`.

    Raises:
        FileRefused: nothing that is known, or more than one thing.
    """
    line, separator = _head(lines)
    if line is None:
        return _LIST, UrlList(())
    if wanted == URLS:
        return _LIST, UrlList((line,))
    text = line.text.strip()
    is_json = separator is None and text.startswith(_JSON)
    if not line.whole and not is_json:
        raise FileRefused(f"line {line.number} is too long to be a header or a URL")
    if BROKEN.search(text):
        raise FileRefused(f"line {line.number} is not UTF-8, or binary: save the file as UTF-8")
    if is_json:
        return _json(lines, line, wanted, ignored, longest_document)
    if separator is None and wanted is None and _URL.match(text):
        return _LIST, _url_list(lines, line)
    return _table(line, separator, wanted, ignored)


def _head(lines: Lines) -> tuple[Line | None, str | None]:
    """Return the first line that is neither blank nor a comment, and the delimiter named before it."""
    separator = None
    while (line := lines.read()) is not None:
        # Spreadsheets write an empty row as delimiters.
        if not line.text.strip(_NOTHING) or is_left_out(line.text.strip()):
            continue
        match = _SEPARATOR.match(line.text)
        if match is None or separator is not None:
            return line, separator
        separator = match["mark"]
        if separator not in DELIMITERS:
            shown = separator or "nothing"
            raise FileRefused(f"line {line.number} names the delimiter {shown}: known are , ; | and tab")
    return None, separator


# --- JSON ------------------------------------------------------------------------------


def _json(
    lines: Lines, line: Line, wanted: str | None, ignored: frozenset[str], longest: int | None
) -> tuple[Dialect, Shape]:
    if (first := _first_of_many(lines, line)) is not None:
        return _json_dialect([first], wanted, ignored), JsonLines(line)
    try:
        text = lines.everything(longest)
        if longest is not None and len(text) > longest:
            message = f"the file is a JSON document of more than {longest:,} characters: send one item a line"
            raise FileRefused(message)
        document = json_items.decoded(text)
    except Unreadable as error:
        raise FileRefused(f"the file {error.message}") from None
    found, note = json_items.items(document)
    return _json_dialect(found, wanted, ignored), Document(found, note)


def _first_of_many(lines: Lines, line: Line) -> object:
    """Return the object that *line* is, if there are more lines after it; else None."""
    try:
        first = json_items.decoded(line.text) if line.whole else None
    except Unreadable:
        return None
    if not isinstance(first, dict):
        return None
    while (following := lines.read()) is not None:
        if not is_left_out(following.text.strip()):
            lines.give_back(following)
            return first
    return None


def _json_dialect(items: Sequence[object], wanted: str | None, ignored: frozenset[str]) -> Dialect:
    if not items:
        return _LIST
    try:
        names = tuple(json_items.flattened(items[0]))
    except Unreadable as error:
        raise FileRefused(f"the first item {error.message}") from None
    dialects = _dialects(names, wanted, ignored, is_json=True)
    if len(dialects) == 1:
        return dialects[0]
    raise FileRefused(_ambiguous(dialects) if dialects else _unknown(names, "the first item", wanted))


# --- lists and tables ------------------------------------------------------------------


def _url_list(lines: Lines, first: Line) -> UrlList:
    """Return the file as a list of URLs, unless it looks like a table without a header."""
    sample = [first]
    while len(sample) < _SAMPLE and (line := lines.read()) is not None:
        sample.append(line)
    urls = [text for line in sample if not is_left_out(text := line.text.strip())]
    for mark in DELIMITERS:
        # In a table whose cells are not quoted, their number differs from row to row.
        if all(mark in text for text in urls):
            message = (
                f"the file may be a table without a header: every line has ‘{delimiter_name(mark)}’."
                f" Give it a header, or say --format {URLS} if every line is a URL"
            )
            raise FileRefused(message)
    return UrlList(tuple(sample))


def _table(
    line: Line, separator: str | None, wanted: str | None, ignored: frozenset[str]
) -> tuple[Dialect, Table]:
    headers = {
        mark: names
        for mark in (DELIMITERS if separator is None else (separator,))
        if (names := csv_records.header(line, mark)) is not None
    }
    if any("://" in name for names in headers.values() for name in names):
        raise FileRefused(f"line {line.number} is no header, for it holds a URL: {line.text[:80].rstrip()}")
    if not headers:
        message = f"line {line.number} is no header: a quotation mark is not closed, or stands inside a cell"
        raise FileRefused(message)
    tables = {
        Table(names, None if len(names) == 1 and separator is None else mark)
        for mark, names in headers.items()
    }
    found = [
        (dialect, table)
        for table in tables
        for dialect in _dialects(table.names, wanted, ignored, is_json=False)
    ]
    if len(found) == 1:
        dialect, table = found[0]
        _refuse_odd_names(table.names, separator)
        return dialect, table
    if found:
        raise FileRefused(_ambiguous([dialect for dialect, _ in found]))
    raise FileRefused(_unknown(max(headers.values(), key=len), f"line {line.number}", wanted))


def _refuse_odd_names(names: Iterable[str], separator: str | None) -> None:
    seen: set[str] = set()
    for name in names:
        flat = normalised(name)
        if flat and flat in seen:
            raise FileRefused(f"two columns are called ‘{name[:80]}’")
        if separator is None and any(mark in name.strip() for mark in DELIMITERS):
            raise FileRefused(
                f"column ‘{name[:80]}’ holds a second delimiter: name the one with a line sep=,"
            )
        seen.add(flat)


# --- formats ---------------------------------------------------------------------------


def _dialects(
    names: Sequence[str], wanted: str | None, ignored: frozenset[str], *, is_json: bool
) -> list[Dialect]:
    """Return the formats that a file with columns *names* can be of."""
    given = {normalised(name) for name in names} - ignored
    if wanted == GENERIC.name:
        chosen = [GENERIC_BY_NAME]
    elif wanted is not None:
        chosen = [_NAMED[wanted]]
    else:
        chosen = candidates(_NAMED.values(), given, is_json=is_json) or [GENERIC]
    return [dialect for dialect in chosen if dialect.has_field("long_url", given)]


def _ambiguous(dialects: Iterable[Dialect]) -> str:
    names = ", ".join(sorted({dialect.name for dialect in dialects}))
    return f"the columns fit more than one format: say which with --format ({names})"


def _unknown(names: Sequence[str], where: str, wanted: str | None) -> str:
    shown = ", ".join(f"‘{terminal_safe(name.strip(), 40)}’" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = "of no known format" if wanted is None else f"without a target as {wanted} has it"
    return f"{where} names columns {what}: {shown}{more}"
