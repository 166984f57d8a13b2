"""What keys, costs and answers may ask about a request, whatever the framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from hopgate_limiter.contrib._proxies import TrustedProxies

CHARGES = "hopgate_limiter.charges"
"""Where a request keeps what it has been charged: a key of an ASGI scope or a WSGI environ."""


class Call(ABC):
    """
    A request, as keys, costs and answers see it.

    Names of headers are in lower case.
    """

    __slots__ = ("_trusted", "native")

    native: Any
    """The framework's own request: an ASGI scope, a WSGI environ, Flask's, Django's or Robyn's request."""

    def __init__(self, native: Any, trusted: TrustedProxies) -> None:
        self.native = native
        self._trusted = trusted

    @property
    @abstractmethod
    def method(self) -> str:
        """The HTTP method, in capitals."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The path, decoded, as seen from the application."""

    @property
    @abstractmethod
    def peer(self) -> str | None:
        """The address that opened the connection; None for a Unix socket."""

    @property
    @abstractmethod
    def user(self) -> str | int | None:
        """What identifies the user that the framework has authenticated; None for an anonymous one."""

    @abstractmethod
    def header_lines(self, name: str) -> Sequence[str]:
        """All values of a header, in order."""

    def header(self, name: str) -> str | None:
        """The value of a header, several joined by commas; None without it."""
        lines = self.header_lines(name)
        return ", ".join(lines) if lines else None

    @property
    def address(self) -> str | None:
        """The client's address: the peer's, or the one that trusted proxies forward."""
        if self._trusted.are_none:
            return self.peer
        return self._trusted.client(self.peer, self.header_lines("x-forwarded-for"))


class EnvironCall(Call):
    """A request in a WSGI environ, or in what Django makes like one of an ASGI scope."""

    __slots__ = ()

    @property
    def environ(self) -> Mapping[str, Any]:
        """The variables of the request."""
        environ: Mapping[str, Any] = self.native
        return environ

    @property
    def method(self) -> str:
        return str(self.environ.get("REQUEST_METHOD", "GET"))

    @property
    def path(self) -> str:
        # PEP 3333: bytes in the guise of Latin-1.
        path: str = self.environ.get("PATH_INFO", "") or "/"
        return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")

    @property
    def peer(self) -> str | None:
        return self.environ.get("REMOTE_ADDR") or None

    @property
    def user(self) -> str | int | None:
        return self.environ.get("REMOTE_USER") or None

    def header_lines(self, name: str) -> Sequence[str]:
        # The server has joined several lines by commas.
        value = self.environ.get("HTTP_" + name.upper().replace("-", "_"))
        return (value,) if value is not None else ()
