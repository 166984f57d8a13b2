"""The least HTTP/1.1 client that a load needs: keep-alive, a local address, no magic."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tests.servers.proxy import abort


class BrokenExchange(ConnectionError):
    """The connection ended before the whole answer had come."""


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """Return the body's object; an empty one if it is none."""
        with contextlib.suppress(ValueError):
            document = json.loads(self.body)
            if isinstance(document, dict):
                return document
        return {}


_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpClient:
    """Connections from one local address to one port of 127.0.0.1, used again while they last."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self._port = port
        self._address = address
        self._idle: deque[_Pair] = deque()

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: object = None
    ) -> HttpAnswer:
        """
        Send one request and return its answer.

        A kept connection that the server has closed meanwhile is not used; a GET that meets the
        closing is sent once more, as every client does.

        Raises:
            OSError: no connection, or it broke: the request may have been served.
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
        """Open a connection for a request to come. Raises OSError."""
        self._idle.append(await self._connect())

    async def aclose(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop()[1].close()

    def reset(self) -> None:
        """Hang up by RST: thousands of ports would else be taken for another minute."""
        while self._idle:
            abort(self._idle.pop()[1])

    async def _connect(self) -> _Pair:
        return await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._address, 0))

    async def _exchange(self, pair: _Pair, request: bytes, method: str) -> HttpAnswer:
        reader, writer = pair
        try:
            writer.write(request)
            answer = await _read(reader, method)
        except BaseException:
            # An answer that comes later must not meet the next request.
            writer.transport.abort()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append(pair)
        return answer


async def _read(reader: asyncio.StreamReader, method: str) -> HttpAnswer:
    try:
        top = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = top.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
        return HttpAnswer(int(status_line.split(" ")[1]), headers, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError, ValueError) as error:
        message = f"no whole answer: {error!r}"
        raise BrokenExchange(message) from error
