"""
An HTTP server that does with each request what a test has planned, in order; then it passes requests on.

It stands in front of a gateway: an answer may get lost after the gateway has done what was asked.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(frozen=True)
class Reply:
    """
    Answer so, whatever is asked.

    Args:
        pause_s: passes between two bytes of the body.
        cut: the connection ends before the body does.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    pause_s: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class Drop:
    """Close the connection without an answer."""


@dataclass(frozen=True)
class Lose:
    """Pass the request on, and close the connection without its answer."""


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ScriptedServer:
    """`with ScriptedServer(port) as server:` serves on `server.url`; *port* is that of the gateway, or 0."""

    def __init__(self, target: int = 0) -> None:
        self.steps: deque[Reply | Drop | Lose | None] = deque()
        self.received: list[Received] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.received.append(
                    Received(
                        self.command,
                        self.path,
                        {name.lower(): value for name, value in self.headers.items()},
                        body,
                    )
                )
                step = outer.steps.popleft() if outer.steps else None
                self.close_connection = True
                if isinstance(step, Drop):
                    return
                reply = step if isinstance(step, Reply) else _passed_on(target, outer.received[-1])
                if not isinstance(step, Lose):
                    self._reply(reply)

            def _reply(self, reply: Reply) -> None:
                self.send_response_only(reply.status)
                for name, value in {"Content-Type": reply.media_type, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body) + (1 if reply.cut else 0)))
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for byte in [reply.body] if not reply.pause_s else map(bytes, zip(reply.body)):
                        self.wfile.write(byte)
                        time.sleep(reply.pause_s)
                except OSError:
                    pass  # the client has left

            do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def plan(self, *steps: Reply | Drop | Lose | None) -> None:
        """Do these with the next requests, None: pass it on; forget what came so far."""
        self.steps.clear()
        self.received.clear()
        self.steps.extend(steps)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _passed_on(port: int, request: Received) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        connection.request(request.method, request.path, request.body or None, headers)
        answer = connection.getresponse()
        given = {name.lower(): value for name, value in answer.getheaders()}
        media_type = given.pop("content-type", "application/octet-stream")
        kept = {name: value for name, value in given.items() if name not in _HOP_BY_HOP}
        return Reply(answer.status, answer.read(), kept, media_type)
    finally:
        connection.close()
