"""A form with a file (RFC 7578), read from a file that holds the body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

TYPE = "multipart/form-data"
_MAX_PARTS, _MAX_HEADER, _MAX_VALUE = 32, 4096, 8192
_CHUNK = 1024 * 1024


class Malformed(ValueError):
    """The body is no form with a file."""


@dataclass(frozen=True, slots=True)
class FileForm:
    """The fields of a form but that of its file, which has *size* bytes; 0 without one."""

    fields: Mapping[str, str]
    size: int


def boundary_of(content_type: str) -> str | None:
    """Return what parts the body of this type; None if it is no form with a file."""
    media_type, options = parse_options_header(content_type)
    return options.get("boundary") or None if media_type.lower() == TYPE else None


def read(body: BinaryIO, boundary: str, *, file_field: str, to: BinaryIO) -> FileForm:
    """
    Return the form in *body*, and write its file, the field *file_field*, to *to*. It takes the processor.

    Raises:
        Malformed: it is none. A part of the file may have been written.
    """
    body.seek(0)
    try:
        with PushMultipartParser(
            boundary, max_header_size=_MAX_HEADER, max_segment_count=_MAX_PARTS, strict=True
        ) as parser:
            reader = _Reader(file_field, to)
            while not parser.closed:
                for event in parser.parse(body.read(_CHUNK)):
                    reader.take(event)
    except (MultipartError, ValueError) as error:
        raise Malformed(str(error)) from None
    return FileForm(reader.fields, reader.size)


class _Reader:
    """Puts the parts of a form where they belong."""

    def __init__(self, file_field: str, to: BinaryIO) -> None:
        self.fields: dict[str, str] = {}
        self.size = 0
        self._file_field = file_field
        self._to = to
        self._name = ""
        self._value = bytearray()
        self._has_file = False

    def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        """Take the beginning of a part, some of its content, or its end."""
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            if self._name != self._file_field:
                self.fields[self._name] = self._value.decode()
        elif self._name == self._file_field:
            self._to.write(event)
            self.size += len(event)
        else:
            self._value += event
            if len(self._value) > _MAX_VALUE:
                raise Malformed("a field is too long")

    def _begin(self, part: MultipartSegment) -> None:
        if part.name is None:
            raise Malformed("a part has no name")
        self._name = part.name
        self._value.clear()
        if self._name == self._file_field:
            if self._has_file:
                raise Malformed("it has two files")
            self._has_file = True
