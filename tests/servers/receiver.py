"""A server that takes POST requests in this process: a base for receivers of what Hopgate sends out."""

from __future__ import annotations

import gzip
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self


class Answer(NamedTuple):
    status: int
    media_type: str
    body: bytes
    headers: Mapping[str, str] = {}


class Receiver(ABC):
    """Runs in the body of a `with`; requests that are held back wait for its end at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                is_packed = self.headers.get("content-encoding") == "gzip"
                plain = gzip.decompress(body) if is_packed else body
                answer = receiver._take(self.path, str(self.headers), plain)
                if answer is None:
                    return
                self.send_response(answer.status)
                self.send_header("content-type", answer.media_type)
                self.send_header("content-length", str(len(answer.body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                # An exporter does not wait for an answer that is late.
                with suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            # Of more that connect at once than the queue holds, some wait a second for their next SYN.
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]

    @abstractmethod
    def _take(self, path: str, headers: str, body: bytes) -> Answer | None:
        """Keep a request, and return the answer; None: the connection ends without one."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
