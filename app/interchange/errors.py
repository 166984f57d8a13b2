"""What an import raises before any row is read, and inside the package for one value."""

from __future__ import annotations

from app.domain.errors import HopgateError
from app.interchange.inert import terminal_safe


class FileRefused(HopgateError):
    """
    The file as a whole cannot be read as links; nothing of it was taken.

    The message is safe to print, whatever it quotes from the file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(terminal_safe(message))


class Unreadable(ValueError):
    """One value does not have the form that its column has. `code` is stable, `message` is for people."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)
