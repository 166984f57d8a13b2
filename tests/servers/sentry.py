"""A receiver of Sentry's envelopes: keeps every event, and everything that arrives as it was sent."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_PROJECT = "7"
_KEY = "0123456789abcdef0123456789abcdef"


class Receiver:
    """
    Runs in this process, in the body of a `with`.

    `is_silent`: each request waits until the end.
    """

    def __init__(self) -> None:
        self.is_silent = False
        self._lock = threading.Lock()
        self._requests: list[tuple[str, str, bytes]] = []
        self._ends = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                with receiver._lock:
                    receiver._requests.append((self.path, str(self.headers), plain))
                if receiver.is_silent:
                    receiver._ends.wait()
                    return
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        self.dsn = f"http://{_KEY}@127.0.0.1:{self.port}/{_PROJECT}"

    @property
    def requests(self) -> list[tuple[str, str, bytes]]:
        """Path, headers and body of every request."""
        with self._lock:
            return list(self._requests)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes: a line of JSON for the envelope, then two for each item."""
        found = []
        for path, headers, body in self.requests:
            assert path == f"/api/{_PROJECT}/envelope/"
            assert _KEY in headers
            lines = body.split(b"\n")[1:]
            for head, payload in zip(lines[::2], lines[1::2], strict=False):
                if json.loads(head)["type"] == "event":
                    found.append(json.loads(payload))
        return found

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
