"""Reads a file of links row by row, once it is recognised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, assert_never

from app.domain.errors import FieldError
from app.interchange import csv_records, encoding, json_items
from app.interchange.columns import Meaning, normalised
from app.interchange.csv_records import Malformed
from app.interchange.errors import FileRefused, Unreadable
from app.interchange.inert import terminal_safe
from app.interchange.lines import Line, Lines
from app.interchange.recognition import (
    BROKEN,
    DIALECTS,
    URLS,
    Document,
    JsonLines,
    Table,
    UrlList,
    is_left_out,
    recognise,
)
from app.interchange.records import Accepted, Check, RecordReader, Refused


class Reading:
    """
    A recognised file. Iterate once: each row that is not blank and no comment comes out, in order.

    `dialect` names the format, `unit` what rows are counted in: `line`, or `item` of a JSON document.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        check: Check,
        dialect: str | None = None,
        ignore: Iterable[str] = (),
        longest_document: int | None = None,
    ) -> None:
        """
        Recognise *stream*, a seekable file, which is closed with the reading.

        Args:
            dialect: one of `DIALECTS`; None recognises it.
            ignore: columns to leave out.
            longest_document: a JSON document, which is read whole, has at most so many characters.

        Raises:
            FileRefused: the file is none of them, or more than one.
        """
        if dialect is not None and dialect not in DIALECTS:
            raise FileRefused(f"there is no format ‘{dialect[:80]}’; there are {', '.join(DIALECTS)}")
        self._ignore = tuple(ignore)
        self._lines = Lines(encoding.opened(stream))
        found, self._shape = recognise(
            self._lines, dialect, frozenset(map(normalised, self._ignore)), longest_document
        )
        self.dialect = found.name
        self.unit = "item" if isinstance(self._shape, Document) else "line"
        is_csv = isinstance(self._shape, Table)
        self._reader = RecordReader(found, check, self._ignore, is_csv=is_csv)
        if isinstance(self._shape, Table):
            self._look_at_columns(self._shape.names)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The columns that are not imported, as the file spells them; complete after the last row."""
        return tuple(name for name in self._reader.left_out if name.strip())

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the file, though no row is refused for it; complete after the last row."""
        notes = []
        if isinstance(self._shape, Document):
            notes += [self._shape.note] if self._shape.note else []
        elif self._lines.is_unterminated:
            notes.append("the last line has no line end: if the file was cut off, its last value may be, too")
        if self._reader.without_slug and self.dialect != URLS:
            notes.append(f"{self._reader.without_slug:,} × no slug in the row: the link gets a new one")
        seen = set(map(normalised, self._reader.left_out))
        notes += [
            f"there is no column ‘{terminal_safe(name, 80)}’ to ignore"
            for name in self._ignore
            if not any(flat == normalised(name) or flat.startswith(f"{normalised(name)}.") for flat in seen)
            and normalised(name) != "domain"
        ]
        return tuple(notes)

    def __iter__(self) -> Iterator[Accepted | Refused]:
        match self._shape:
            case Table():
                return self._table_rows(self._shape)
            case UrlList():
                return self._list_rows(self._shape)
            case JsonLines():
                return self._json_line_rows(self._shape)
            case Document():
                return self._document_rows(self._shape)
            case _:
                assert_never(self._shape)

    def _look_at_columns(self, names: tuple[str, ...]) -> None:
        for name in names:
            if self._reader.role(name) is Meaning.SHORT_LINK:
                shown = terminal_safe(name, 80)
                message = (
                    f"column ‘{shown}’ may be the short link, and is not understood as {self.dialect}:"
                    f" name the format with --format, or leave the column out with --ignore ‘{shown}’"
                )
                raise FileRefused(message)

    def _table_rows(self, table: Table) -> Iterator[Accepted | Refused]:
        names = table.names
        roles = [self._reader.role(name) for name in names]
        # Spreadsheets end rows in empty cells without a name; a value there belongs to no column.
        nameless = [position for position, name in enumerate(names) if not name.strip()]
        for record in csv_records.records(self._lines, table.delimiter):
            if isinstance(record, Malformed):
                fault = FieldError("row", record.code, record.message)
                yield Refused(record.line, record.last_line, (fault,), record.text)
                continue
            first, last, cells = record.line, record.last_line, record.cells
            shown = ",".join(cells)
            error = _width_error(len(names), cells, nameless) or _text_error(shown)
            if error is not None:
                yield Refused(first, last, (error,), shown)
            else:
                yield self._reader.read(first, last, zip(names, roles, cells, strict=True), shown)

    def _list_rows(self, found: UrlList) -> Iterator[Accepted | Refused]:
        role = self._reader.role("long_url")
        for number, text, error in self._texts(found.sample):
            fault = error
            if fault is None and '"' in text:
                fault = FieldError("long_url", "url_forbidden_character", "must not contain quotation marks")
            if fault is not None:
                yield Refused(number, number, (fault,), text)
            else:
                yield self._reader.read(number, number, (("long_url", role, text),), text)

    def _json_line_rows(self, found: JsonLines) -> Iterator[Accepted | Refused]:
        for number, text, error in self._texts((found.first,)):
            if error is not None:
                yield Refused(number, number, (error,), text)
                continue
            try:
                item = json_items.decoded(text)
            except Unreadable as unreadable:
                yield Refused(number, number, (_fault(unreadable),), text)
            else:
                yield self._item_row(number, item, text)

    def _document_rows(self, found: Document) -> Iterator[Accepted | Refused]:
        for number, item in enumerate(found.items, start=1):
            yield self._item_row(number, item, "")

    def _item_row(self, number: int, item: object, shown: str) -> Accepted | Refused:
        try:
            members = json_items.flattened(item)
        except Unreadable as unreadable:
            return Refused(number, number, (_fault(unreadable),), shown)
        row = ((name, self._reader.role(name), value) for name, value in members.items())
        return self._reader.read(number, number, row, shown)

    def _texts(self, first: Iterable[Line]) -> Iterator[tuple[int, str, FieldError | None]]:
        """Yield number, content and fault of each line that holds something."""
        for line in self._from(first):
            text = line.text.strip()
            if not is_left_out(text):
                error = _text_error(text)
                if not line.whole:
                    error = FieldError("row", "row_too_long", "is too long")
                yield line.number, text, error

    def _from(self, first: Iterable[Line]) -> Iterator[Line]:
        yield from first
        while (line := self._lines.read()) is not None:
            yield line


def _fault(unreadable: Unreadable) -> FieldError:
    return FieldError("row", unreadable.code, unreadable.message)


def _text_error(text: str) -> FieldError | None:
    if BROKEN.search(text):
        return FieldError("row", "encoding", "holds bytes that are not UTF-8, or NUL")
    return None


def _width_error(width: int, cells: Sequence[str], nameless: Sequence[int]) -> FieldError | None:
    if len(cells) > width:
        message = f"has {len(cells)} cells, and the header {width}: quote a cell that holds the delimiter"
        return FieldError("row", "cells_too_many", message)
    if len(cells) < width:
        message = f"has {len(cells)} cells, and the header {width}: is the row cut off?"
        return FieldError("row", "cells_too_few", message)
    if nameless and any(cells[position] for position in nameless):
        return FieldError("row", "cells_too_many", "has a cell in a column without a name")
    return None
