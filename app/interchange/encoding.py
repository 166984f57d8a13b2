"""
Bytes to text: UTF-8 with or without a byte order mark, and UTF-16 with one.

A byte that is not UTF-8 becomes a lone surrogate, which refuses its row and no other.
"""

from __future__ import annotations

import codecs
import io
import os
from typing import BinaryIO, TextIO

from app.interchange.errors import FileRefused

# Files that are often taken for a CSV, by their first bytes.
_OTHER_KINDS = (
    (codecs.BOM_UTF32_LE, "is UTF-32: save it as UTF-8"),
    (codecs.BOM_UTF32_BE, "is UTF-32: save it as UTF-8"),
    (b"PK\x03\x04", "is a ZIP archive or a workbook: unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "is a workbook: save it as CSV"),
    (b"\x1f\x8b", "is compressed: unpack it"),
    (b"SQLi", "is a database: export its links first"),
)
_HEAD = 4


def opened(stream: BinaryIO) -> TextIO:
    """
    Return *stream* as text whose lines keep their ends; it must be seekable, and is closed with the text.

    Raises:
        FileRefused: the encoding is another, or the file is not text.
    """
    head = stream.read(_HEAD)
    for magic, message in _OTHER_KINDS:
        if head.startswith(magic):
            raise FileRefused(f"the file {message}")
    encoding, errors, mark = "utf-8", "surrogateescape", b""
    if head.startswith(codecs.BOM_UTF8):
        mark = codecs.BOM_UTF8
    elif head.startswith(codecs.BOM_UTF16_LE):
        encoding, errors, mark = "utf-16-le", "surrogatepass", codecs.BOM_UTF16_LE
    elif head.startswith(codecs.BOM_UTF16_BE):
        encoding, errors, mark = "utf-16-be", "surrogatepass", codecs.BOM_UTF16_BE
    elif b"\x00" in head:
        message = "the file is binary, or UTF-16 without a byte order mark: save it as UTF-8"
        raise FileRefused(message)
    if encoding != "utf-8" and stream.seek(0, os.SEEK_END) % 2:
        message = "the file is UTF-16 and ends inside a character: it was cut off"
        raise FileRefused(message)
    stream.seek(len(mark))
    return io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="")
