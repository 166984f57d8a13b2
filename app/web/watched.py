"""granian's protocol with a memory of the answer that was sent through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any


class WatchedProtocol:
    """The *protocol* of one request; `status` and `headers` of its answer, 0 and empty until it is sent."""

    __slots__ = ("_protocol", "headers", "status")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.status = 0
        self.headers: Iterable[tuple[str, str]] = ()

    def response_empty(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send an answer without a body."""
        self.status = status
        self.headers = headers
        self._protocol.response_empty(status, headers)

    def response_bytes(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Send an answer."""
        self.status = status
        self.headers = headers
        self._protocol.response_bytes(status, headers, body)

    def response_stream(self, status: int, headers: Iterable[tuple[str, str]]) -> Any:
        """Begin an answer that is sent in parts."""
        self.status = status
        self.headers = headers
        return self._protocol.response_stream(status, headers)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Read the body of the request."""
        body: AsyncIterator[bytes] = self._protocol.__aiter__()
        return body
