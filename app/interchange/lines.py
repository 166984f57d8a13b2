"""Numbered lines of bounded length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

# Targets end at 8,192 characters, titles at 512; what is far longer is no link.
MAX_LINE = 1 << 20
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Line:
    """
    One physical line with its end: CR, LF, CRLF, or none at the end of the file.

    A line longer than `MAX_LINE` is not `whole`: `text` is its beginning. `quotes` is how many
    quotation marks all of it has.
    """

    number: int
    text: str
    whole: bool = True
    quotes: int = 0


class Lines:
    """The lines of a text; one line can be given back."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._start = text.tell()
        self._number = 0
        self._given_back: Line | None = None
        self._ahead: str | None = None
        # Does the last line that was read lack its end?
        self.is_unterminated = False

    def read(self) -> Line | None:
        """Return the next line; None at the end."""
        if self._given_back is not None:
            line, self._given_back = self._given_back, None
            return line
        piece = self._piece()
        if not piece:
            return None
        self._number += 1
        if piece.endswith(("\n", "\r")):
            return Line(self._number, piece)
        if len(piece) < MAX_LINE:
            self.is_unterminated = True
            return Line(self._number, piece)
        return self._long_line(piece)

    def give_back(self, line: Line) -> None:
        """Make *line* the next one again."""
        if self._given_back is not None:
            message = "only one line can be given back"
            raise AssertionError(message)
        self._given_back = line

    def everything(self, most: int | None = None) -> str:
        """Return the whole text, whatever was read of it; one character more than *most* of a longer one."""
        self._text.seek(self._start)
        return self._text.read(-1 if most is None else most + 1)

    def _long_line(self, piece: str) -> Line:
        shown, quotes = piece[:_SHOWN], 0
        while True:
            quotes += piece.count('"')
            if not piece or piece.endswith(("\n", "\r")):
                break
            piece = self._piece()
        self.is_unterminated = not piece
        return Line(self._number, shown, whole=False, quotes=quotes)

    def _piece(self) -> str:
        if self._ahead is not None:
            piece, self._ahead = self._ahead, None
        else:
            piece = self._text.readline(MAX_LINE)
        if len(piece) >= MAX_LINE and piece.endswith("\r"):
            # The limit may have parted CR from LF.
            following = self._text.readline(MAX_LINE)
            if following == "\n":
                return piece + following
            self._ahead = following
        return piece
