"""
CSV as RFC 4180 has it, read strictly, with the lines that each record takes.

`csv.reader` joins what it cannot read and says where it stopped, not where the fault began. Here a
record that breaks a rule becomes `Malformed`, with all of its lines, and the next line begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.interchange.lines import MAX_LINE, Line, Lines

DELIMITERS = (",", ";", "\t", "|")
_QUOTE = '"'
_NAMES = {"\t": "tab"}


@dataclass(frozen=True, slots=True)
class Record:
    """The cells of one record, which takes the lines `line` to `last_line`."""

    line: int
    last_line: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Malformed:
    """Lines that are no record: which, why (a stable code and a sentence), and how they begin."""

    line: int
    last_line: int
    code: str
    message: str
    text: str


def delimiter_name(delimiter: str) -> str:
    """Return what to call *delimiter* in a message."""
    return _NAMES.get(delimiter, delimiter)


def records(lines: Lines, delimiter: str | None) -> Iterator[Record | Malformed]:
    """
    Read *lines* to the end. Lines that hold nothing but blanks and delimiters are passed over.

    Args:
        delimiter: None if the file has one column and names no delimiter. What might be one must
            then be quoted: without quotes nothing tells a URL with commas from a row with more cells.
    """
    while (line := lines.read()) is not None:
        text = line.text.rstrip("\r\n")
        if line.whole and _QUOTE not in text:
            yield from _plain(line.number, text, delimiter)
        else:
            yield _Scan(lines, delimiter, line).record()


def header(line: Line, delimiter: str) -> tuple[str, ...] | None:
    """Return the cells of *line* under *delimiter*; None if it is no complete record."""
    record = _Scan(None, delimiter, line).record()
    return record.cells if isinstance(record, Record) else None


def _plain(number: int, text: str, delimiter: str | None) -> Iterator[Record | Malformed]:
    if delimiter is not None:
        cells = text.split(delimiter)
        # A first cell with a value is the common case, and saves a look at the others.
        if cells[0].strip() or any(cell and not cell.isspace() for cell in cells):
            yield Record(number, number, tuple(cells))
    elif found := next((mark for mark in DELIMITERS if mark in text.strip()), None):
        message = (
            f"holds ‘{delimiter_name(found)}’ outside quotes, but the header names one column:"
            " put quotation marks around the cell"
        )
        yield Malformed(number, number, "cells_too_many", message, text)
    elif text and not text.isspace():
        yield Record(number, number, (text,))


class _Scan:
    """Reads one record that has quotes; takes further lines where a quoted cell does."""

    def __init__(self, lines: Lines | None, delimiter: str | None, first: Line) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._first = first
        self._last = first.number
        self._size = len(first.text)
        self._fault: tuple[str, str] | None = None
        self._text, self._end = _parted(first.text)

    def record(self) -> Record | Malformed:
        if not self._first.whole:
            return self._oversize(self._first.quotes)
        cells: list[str] = []
        start = 0
        while True:
            if self._text.startswith(_QUOTE, start):
                opened = self._last
                found = self._quoted(start + 1)
                if isinstance(found, Malformed):
                    return found
                cell, start = found
                stop = self._next_delimiter(start)
                if stop != start and start < len(self._text):
                    self._blame(
                        "quote_stray", f"text follows the closing quote of the cell opened in line {opened}"
                    )
            else:
                stop = self._next_delimiter(start)
                cell = self._text[start : len(self._text) if stop < 0 else stop]
                if _QUOTE in cell:
                    self._blame("quote_stray", "a quotation mark stands inside a cell that is not quoted")
            cells.append(cell)
            if stop < 0:
                break
            start = stop + 1
        if self._fault is not None:
            return self._malformed(*self._fault)
        return Record(self._first.number, self._last, tuple(cells))

    def _quoted(self, at: int) -> tuple[str, int] | Malformed:
        """Return the cell whose content begins *at*, and where it ended in the current line."""
        opened = self._last
        parts: list[str] = []
        while True:
            close = self._text.find(_QUOTE, at)
            if close < 0:
                parts.append(self._text[at:] + self._end)
                following = self._lines.read() if self._lines is not None else None
                if following is None:
                    message = f"the quote opened in line {opened} is never closed"
                    return self._malformed("quote_unclosed", message)
                self._last = following.number
                self._size += len(following.text)
                if not following.whole or self._size > MAX_LINE:
                    # The quotes in a following line that is whole are not counted yet.
                    more = following.text.count(_QUOTE) if following.whole else following.quotes
                    return self._oversize(1 + more)
                self._text, self._end = _parted(following.text)
                at = 0
            elif self._text.startswith(_QUOTE, close + 1):
                parts.append(self._text[at : close + 1])
                at = close + 2
            else:
                parts.append(self._text[at:close])
                return "".join(parts), close + 1

    def _next_delimiter(self, start: int) -> int:
        return -1 if self._delimiter is None else self._text.find(self._delimiter, start)

    def _oversize(self, quotes: int) -> Malformed:
        """Pass over a record that is too long to keep: it goes on while its quotes are odd in number."""
        while quotes % 2:
            following = self._lines.read() if self._lines is not None else None
            if following is None:
                break
            self._last = following.number
            quotes += following.text.count(_QUOTE) if following.whole else following.quotes
        return self._malformed("row_too_long", f"is longer than {MAX_LINE:,} characters")

    def _blame(self, code: str, message: str) -> None:
        # The first fault explains the later ones.
        self._fault = self._fault or (code, message)

    def _malformed(self, code: str, message: str) -> Malformed:
        shown = self._first.text.rstrip("\r\n")
        return Malformed(self._first.number, self._last, code, message, shown)


def _parted(text: str) -> tuple[str, str]:
    """Return the content of a line, and its end."""
    content = text.rstrip("\r\n")
    return content, text[len(content) :]
