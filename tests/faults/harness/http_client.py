"""A minimal HTTP/1.1 client for loads: keep-alive connections from a chosen local address."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tests.servers.proxy import abort


class BrokenExchange(ConnectionError):
    """The connection ended before the response was complete."""


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """Return the body as an object; empty if it is not a JSON object."""
        with contextlib.suppress(ValueError):
            document = json.loads(self.body)
            if isinstance(document, dict):
                return document
        return {}


_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpClient:
    """Keep-alive connections from one local address to one port of 127.0.0.1."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self._port = port
        self._address = address
        self._idle: deque[_Pair] = deque()

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: object = None
    ) -> HttpResponse:
        """
        Send one request and return its response.

        An idle connection that the server has closed is skipped; a GET that races with the close is
        retried once, as browsers do.

        Raises:
            OSError: connection refused or broken. The server may have handled the request.
        """
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: hop.example"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        request = "\r\n".join([*lines, "", ""]).encode() + content
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof():
                writer.close()
                continue
            try:
                return await self._exchange((reader, writer), request, method)
            except OSError:
                if method != "GET":
                    raise
        return await self._exchange(await self._connect(), request, method)

    async def connect(self) -> None:
        """Open a connection ahead of a request. Raises OSError."""
        self._idle.append(await self._connect())

    async def aclose(self) -> None:
        """Close every connection."""
        while self._idle:
            self._idle.pop()[1].close()

    def reset(self) -> None:
        """Close every connection by RST: otherwise thousands of ports stay in TIME_WAIT for a minute."""
        while self._idle:
            abort(self._idle.pop()[1])

    async def _connect(self) -> _Pair:
        return await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._address, 0))

    async def _exchange(self, pair: _Pair, request: bytes, method: str) -> HttpResponse:
        reader, writer = pair
        try:
            writer.write(request)
            response = await _read(reader, method)
        except BaseException:
            # A late response must not be read as that of the next request.
            writer.transport.abort()
            raise
        if response.headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append(pair)
        return response


async def _read(reader: asyncio.StreamReader, method: str) -> HttpResponse:
    try:
        top = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = top.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
        return HttpResponse(int(status_line.split(" ")[1]), headers, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError, ValueError) as error:
        message = f"incomplete response: {error!r}"
        raise BrokenExchange(message) from error
