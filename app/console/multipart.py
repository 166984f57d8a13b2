"""The parts of a form with a file (RFC 7578), found in a file that holds the body."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

TYPE = "multipart/form-data"
_BOUNDARY = re.compile(r';\s*boundary="?([0-9A-Za-z\'()+_,./:=?-]{1,70})"?\s*(?:;|\Z)', re.IGNORECASE)
_NAME = re.compile(
    rb'content-disposition:[ \t]*form-data[ \t]*;(?:[^\r\n]*;)?[ \t]*name="([^"\r\n]*)"', re.IGNORECASE
)
_END = b"\r\n"
_MAX_PARTS, _MAX_HEADERS, _MAX_VALUE = 32, 4096, 8192
_CHUNK = 1024 * 1024


class Malformed(ValueError):
    """The body is no form with a file."""


@dataclass(frozen=True, slots=True)
class FileForm:
    """The fields of a form, and where in the body the content of its file is; None: it has none."""

    fields: Mapping[str, str]
    place: tuple[int, int] | None


def boundary_of(content_type: str) -> bytes | None:
    """Return what parts the body of this type; None if it is no form with a file."""
    media_type, _, rest = content_type.partition(";")
    found = _BOUNDARY.search(f";{rest}") if media_type.strip().lower() == TYPE else None
    return None if found is None else found[1].encode("ascii")


def read(body: BinaryIO, boundary: bytes, *, file_field: str) -> FileForm:
    """
    Return the form in *body*; its file is the field *file_field*. Takes the processor for a large one.

    Raises:
        Malformed: it is none.
    """
    body.flush()
    try:
        with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read(content, b"--" + boundary, file_field.encode())
    except (ValueError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None


def copy(body: BinaryIO, place: tuple[int, int], to: BinaryIO) -> None:
    """Write what is at *place* of *body* to another file."""
    start, end = place
    body.seek(start)
    while start < end:
        chunk = body.read(min(_CHUNK, end - start))
        if not chunk:
            raise Malformed("it is cut off")
        to.write(chunk)
        start += len(chunk)


def _read(content: mmap.mmap, mark: bytes, file_field: bytes) -> FileForm:
    fields: dict[str, str] = {}
    place: tuple[int, int] | None = None
    at = len(mark)
    if content[:at] != mark:
        raise Malformed("it does not begin with its boundary")
    for _ in range(_MAX_PARTS):
        if content[at : at + 2] == b"--":
            return FileForm(fields, place)
        headers = content.find(_END + _END, at, at + _MAX_HEADERS)
        start = headers + 4
        end = content.find(_END + mark, start - 2) if headers >= 0 else -1
        name = _NAME.search(content[at:start]) if end >= 0 else None
        if name is None:
            raise Malformed("a part has no name, or no end")
        end = max(start, end)
        if name[1] == file_field:
            place = (start, end)
        elif end - start > _MAX_VALUE:
            raise Malformed("a field is too long")
        else:
            fields[name[1].decode()] = content[start:end].decode()
        at = end + len(_END + mark)
    raise Malformed("it has too many parts")
