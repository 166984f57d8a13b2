"""A front in this process, before a control plane that a test scripts."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hopgate_front import Front

from app.adapters.native_limiter import NativeRateLimiter
from app.ports import Policy
from app.settings import IpNetwork
from app.web import errors
from app.web.front import Caps, new_front

# What a control plane does with a connection whose first bytes it has.
Script = Callable[[socket.socket, bytes], None]
LIMITS = dict.fromkeys(Policy, "1000000/s burst 1000000")


def answer(status: str = "200 OK", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def ok(connection: socket.socket, _head: bytes) -> None:
    connection.sendall(answer(body=b"of the application"))


@dataclass
class ControlPlane:
    """Runs *script* for each request head that comes through a Unix socket."""

    path: Path
    script: Script = ok
    heads: list[bytes] = field(default_factory=list)
    # All that came through each connection.
    streams: list[bytearray] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        received, stream = b"", bytearray()
        self.streams.append(stream)
        with connection, contextlib.suppress(OSError):
            while chunk := connection.recv(65536):
                received += chunk
                stream += chunk
                while b"\r\n\r\n" in received:
                    head, _, received = received.partition(b"\r\n\r\n")
                    self.heads.append(head)
                    self.script(connection, received)
                    if connection.fileno() == -1:
                        return


@dataclass
class Alone:
    front: Front
    port: int
    control: ControlPlane

    def connect(self, timeout: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)


@contextmanager
def alone(
    script: Script = ok,
    *,
    caps: Caps | None = None,
    trusted: Sequence[IpNetwork] = (),
    proxy_protocol: bool = False,
    **options: Any,
) -> Iterator[Alone]:
    """Serve until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="hg-"))
    control = ControlPlane(folder / "0.sock", script)
    private = socket.socket(socket.AF_UNIX)
    private.bind(str(control.path))
    private.listen(128)
    threading.Thread(target=control.serve, args=(private,), daemon=True).start()
    limiter = NativeRateLimiter(LIMITS)
    front = new_front(
        control.path,
        redirect_limit=limiter.functions(Policy.REDIRECT),
        not_found_limit=limiter.functions(Policy.NOT_FOUND),
        trusted=trusted,
        base_path="",
        blocked=errors.blocked("http://hop.example/"),
        monotonic=time.monotonic,
        caps=caps or Caps(),
        proxy_protocol=proxy_protocol,
    )
    public = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = public.getsockname()[1]
    front.start([public.detach()])
    try:
        yield Alone(front, port, control)
    finally:
        front.end()
        private.shutdown(socket.SHUT_RDWR)
        private.close()
        limiter.close()
        shutil.rmtree(folder)
