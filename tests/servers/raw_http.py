"""HTTP by hand: bytes out, bytes in, nothing corrected on the way."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} occurs {len(values)} times"
        return values[0] if values else None


def exchange(port: int, data: bytes, *, timeout: float = 10.0) -> RawAnswer | None:
    """Send *data* and return the answer; None if the server closed the connection without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        # The server may refuse before it has read everything: its answer may still arrive.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return read_answer(connection, head=data.startswith(b"HEAD "))


def answered(port: int, data: bytes) -> RawAnswer:
    """Send *data* and return the answer, which has to come."""
    answer = exchange(port, data)
    assert answer is not None
    return answer


def answer_on(connection: socket.socket) -> RawAnswer:
    """Return the answer on *connection*, which has to come."""
    answer = read_answer(connection)
    assert answer is not None
    return answer


def read_answer(connection: socket.socket, *, head: bool = False) -> RawAnswer | None:
    received = b""
    while b"\r\n\r\n" not in received:
        try:
            chunk = connection.recv(65536)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return None
        received += chunk
    top, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = top.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = 0 if head else int(dict(headers).get("content-length", "0"))
    while len(body) < length:
        chunk = connection.recv(65536)
        if not chunk:
            break
        body += chunk
    return RawAnswer(int(status_line.split(" ")[1]), headers, body)
