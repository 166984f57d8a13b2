"""What a connection of the front may take: time for each part of an exchange, memory, descriptors."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from app.web.bulk_api import PATH
from app.web.front import Caps
from tests.integration.front_alone import alone, answer
from tests.integration.front_gateway import get, is_of_the_front, limited
from tests.servers.hopgate import eventually
from tests.servers.raw_http import answer_on, read_answer

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
REDIRECT = b"GET /hot HTTP/1.1\r\nHost: x\r\n\r\n"
# Larger than what the kernel buffers of one connection.
LARGE = b"x" * 16_000_000


def head(length: int, *headers: str) -> bytes:
    lines = ["POST /api/v1/links HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def is_closed(connection: socket.socket) -> bool:
    """Read to the end: was there one?"""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


# --- the time of a client ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        b"GET /hot HTTP/1.1\r\nHos",
        b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01",
    ],
)
def test_head_has_its_time(sent):
    """A connection that sends no request ends, whatever it sends instead."""
    with alone(caps=Caps(head_s=0.3)) as alone_, alone_.connect() as connection:
        connection.sendall(sent)

        assert is_closed(connection)
        eventually(lambda: alone_.front.connections == 0, what="it is not counted")


def test_head_that_trickles_has_no_more_time():
    with alone(caps=Caps(head_s=0.5)) as alone_, alone_.connect() as connection:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"GET /hot HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000:
                connection.sendall(bytes([byte]))
                if alone_.front.connections == 0 and time.monotonic() - began > 0.1:
                    break
                time.sleep(0.02)
        assert is_closed(connection)


def test_idle_connection_ends():
    with alone(caps=Caps(head_s=1.0)) as alone_, alone_.connect() as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert answer_on(connection).status == 200

        assert is_closed(connection)


def test_answer_that_is_not_read_ends():
    """The control plane's connection ends as well: its part of the memory is bounded too."""
    ended = threading.Event()

    def large(connection: socket.socket, _body: bytes) -> None:
        try:
            connection.sendall(answer(body=LARGE))
        except OSError:
            ended.set()

    with alone(large, caps=Caps(write_s=0.3)) as alone_, alone_.connect() as connection:
        connection.sendall(GET)

        assert ended.wait(20)
        eventually(lambda: alone_.front.connections == 0, what="the connection is closed")


def test_batch_may_take_longer_to_come_than_an_answer():
    """The application limits the time of a batch itself; that of an answer begins when it has all of it."""

    def whole(connection: socket.socket, received: bytes) -> None:
        while len(received) < 6:
            received += connection.recv(6)
        connection.sendall(answer(body=received))

    with alone(whole, caps=Caps(answer_s=0.2)) as alone_, alone_.connect() as connection:
        lines = [f"POST {PATH} HTTP/1.1", "Host: x", "Content-Length: 6", "Connection: close", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        for byte in b"abcdef":
            time.sleep(0.1)
            connection.sendall(bytes([byte]))

        assert connection.makefile("rb").read().endswith(b"\r\n\r\nabcdef")


def test_answers_to_pipelined_requests_that_are_not_read_end():
    with alone(caps=Caps(write_s=0.3)) as alone_, alone_.connect() as connection:
        end = time.monotonic() + 1000
        target = "https://example.com/" + "a" * 2000
        alone_.front.offer_many([("hot", 1, 0, 302, target, 302, 0, end, None)], time.monotonic(), end)
        connection.settimeout(1)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(REDIRECT * 1000)

        eventually(lambda: alone_.front.connections == 0, what="the connection is closed")


def test_answer_that_is_read_slowly_arrives():
    """Above the minimum rate, a client may take longer than `write_s` in all."""
    body = b"y" * 6_000_000

    def large(connection: socket.socket, _body: bytes) -> None:
        connection.sendall(answer(body=body))

    with alone(large, caps=Caps(write_s=0.5)) as alone_, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", alone_.port))
        connection.sendall(GET)
        received = 0
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            received += len(connection.recv(20_000))
            time.sleep(0.05)
        while received < len(body):
            chunk = connection.recv(1 << 20)
            assert chunk
            received += len(chunk)


# --- the time of the control plane --------------------------------------------------------------


def test_silent_control_plane_is_a_503():
    with alone(lambda *_: None, caps=Caps(answer_s=0.3)) as alone_, alone_.connect() as connection:
        connection.sendall(GET)
        read = answer_on(connection)
        connection.sendall(head(2) + b"{}")
        written = answer_on(connection)

        assert (read.status, written.status) == (503, 503)
        assert read.header("retry-after") is not None
        assert written.header("retry-after") is not None
        assert b"may or may not" in written.body
        assert alone_.front.unanswered == 2


def test_control_plane_that_stops_within_an_answer_ends_the_connection():
    """A whole answer is never pretended."""

    def half(connection: socket.socket, _body: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    with alone(half, caps=Caps(answer_s=0.3)) as alone_, alone_.connect() as connection:
        connection.sendall(GET)
        received = read_answer(connection)

        assert received is not None
        assert received.body == b"half"


def test_vanished_private_socket_is_a_503():
    with alone() as alone_:
        alone_.control.path.unlink()
        began = time.monotonic()
        with alone_.connect() as connection:
            for _ in range(3):
                connection.sendall(GET)
                read = answer_on(connection)
                assert (read.status, read.header("retry-after")) == (503, "1")
        assert time.monotonic() - began < 10
        assert alone_.front.unanswered == 3


def test_vanished_private_socket_is_seen_in_readiness(tmp_path):
    """So a balancer sends clients elsewhere. Redirects that are hot go on."""
    with limited(tmp_path) as gateway:
        eventually(lambda: is_of_the_front(get(gateway, "/known")), what="the link is hot")
        assert get(gateway, "/readyz").status == 200
        [path] = tmp_path.glob("hopgate-*/0.sock")

        path.unlink()

        # Connections that are open already go on for the time that they are kept.
        eventually(lambda: get(gateway, "/readyz").status == 503, 20, what="it is not ready", every=0.2)


def test_control_plane_that_accepts_nothing_is_a_503():
    """The queue of its socket is full."""
    with alone(caps=Caps(answer_s=0.5)) as alone_:
        path = alone_.control.path
        path.unlink()
        with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as stack:
            full.bind(str(path))
            full.listen(0)
            for _ in range(2):
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    waiting.connect(str(path))
            with alone_.connect() as connection:
                connection.sendall(GET)
                assert answer_on(connection).status == 503


# --- bodies that are refused early ---------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 100, 20_000, 65_536])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_early_refusal_arrives(length, part):
    """The application's answer, whatever part of the body has been sent when it closes."""

    def refuse(connection: socket.socket, _body: bytes) -> None:
        connection.sendall(answer("401 Unauthorized", b"no key"))
        connection.close()

    with alone(refuse) as alone_:
        for _ in range(10):
            with alone_.connect() as connection:
                sent = int(length * part)
                connection.sendall(head(length) + b"x" * sent)
                received = answer_on(connection)
                assert (received.status, received.body) == (401, b"no key")
                with contextlib.suppress(OSError):
                    connection.sendall(b"x" * (length - sent))
        assert alone_.front.unanswered == 0


def test_early_refusal_reads_a_body_no_further():
    """A client that trickles on is closed: nothing waits for the end of its body."""

    def refuse(connection: socket.socket, _body: bytes) -> None:
        connection.sendall(answer("401 Unauthorized"))

    with alone(refuse) as alone_, alone_.connect() as connection:
        connection.sendall(head(60_000) + b"x")
        received = answer_on(connection)

        assert (received.status, received.header("connection")) == (401, "close")
        eventually(lambda: alone_.front.connections == 0, 10, what="the connection is closed")


def test_refused_client_that_goes_on_sending_reads_its_answer():
    """The end of the connection does not reset it: that would discard an answer that is not read yet."""

    def refuse(connection: socket.socket, _body: bytes) -> None:
        connection.sendall(answer("401 Unauthorized", b"no key"))
        connection.close()

    with alone(refuse) as alone_, alone_.connect() as connection:
        connection.sendall(head(60_000) + b"x" * 100)
        eventually(lambda: alone_.control.heads, what="the application has answered")
        for _ in range(20):
            connection.sendall(b"x" * 1000)
            time.sleep(0.01)

        assert answer_on(connection).status == 401


def test_connection_is_used_again_only_after_a_whole_body():
    """What is left of one body must never be read as the next request."""

    def refuse(connection: socket.socket, body: bytes) -> None:
        connection.sendall(answer("401 Unauthorized" if len(body) < 50 else "200 OK"))

    smuggled = b"GET /stolen HTTP/1.1\r\nHost: x\r\n\r\n"
    with alone(refuse) as alone_:
        with alone_.connect() as connection:
            connection.sendall(head(60_000) + b"x")
            assert answer_on(connection).status == 401
            with contextlib.suppress(OSError):
                connection.sendall(smuggled)
            assert read_answer(connection) is None
        assert not any(b"stolen" in seen for seen in alone_.control.heads)


@pytest.mark.parametrize("asks", [True, False])
def test_expected_body_is_asked_for_by_the_application(asks):
    """`100 Continue` comes from the application, or its refusal does instead."""

    def script(connection: socket.socket, _body: bytes) -> None:
        if asks:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert connection.recv(100) == b"hello"
            connection.sendall(answer("201 Created"))
        else:
            connection.sendall(answer("401 Unauthorized"))

    with alone(script) as alone_, alone_.connect() as connection:
        connection.sendall(head(5, "Expect: 100-Continue"))
        if asks:
            assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"hello")
        assert answer_on(connection).status == (201 if asks else 401)


# --- numbers -----------------------------------------------------------------------------------


def test_connections_beyond_the_cap_wait():
    """In the queue of their socket, until one ends; those that are open are served meanwhile."""
    with alone(caps=Caps(connections=3)) as alone_, contextlib.ExitStack() as stack:
        first = [stack.enter_context(alone_.connect()) for _ in range(3)]
        eventually(lambda: alone_.front.connections == 3, what="the cap is reached")
        late = stack.enter_context(alone_.connect())
        late.sendall(GET)
        for connection in first:
            connection.sendall(GET)
            assert answer_on(connection).status == 200
        assert alone_.front.connections == 3
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.recv(1)

        first[0].close()

        late.settimeout(20)
        assert answer_on(late).status == 200


def test_drain_has_a_limit():
    """Requests that never end do not keep the process."""
    with alone(lambda *_: None) as alone_, alone_.connect() as connection:
        connection.sendall(GET)
        eventually(lambda: alone_.control.heads, what="it is under way")

        assert not alone_.front.drain(0.3)
        alone_.front.end()

        assert is_closed(connection)
        assert alone_.front.connections == 0


@pytest.mark.parametrize(("fields", "status"), [(97, 200), (98, 431), (500, 431)])
def test_fields_are_counted(fields, status):
    with alone() as alone_, alone_.connect() as connection:
        lines = [f"X-{number}: a" for number in range(fields - 1)]
        connection.sendall("\r\n".join(["GET /healthz HTTP/1.1", "Host: x", *lines, "", ""]).encode())

        assert answer_on(connection).status == status


@pytest.mark.parametrize("shape", ["fields", "one field", "target", "name"])
@pytest.mark.parametrize("is_slow", [False, True])
def test_head_has_a_size(shape, is_slow):
    """414 or 431, at once or in pieces, and never handed on."""
    size = 40_000
    text = {
        "fields": "GET /healthz HTTP/1.1\r\nHost: x\r\n" + f"X-Y: {'a' * 990}\r\n" * (size // 1000),
        "one field": f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Y: {'a' * size}\r\n",
        "target": f"GET /healthz?{'a' * size} HTTP/1.1\r\nHost: x\r\n",
        "name": f"GET /healthz HTTP/1.1\r\nHost: x\r\n{'X' * size}: a\r\n",
    }[shape].encode() + b"\r\n"
    with alone() as alone_, alone_.connect() as connection:
        for start in range(0, len(text), 1000 if is_slow else len(text)):
            with contextlib.suppress(OSError):
                connection.sendall(text[start : start + (1000 if is_slow else len(text))])
            time.sleep(0.001 if is_slow else 0)

        assert answer_on(connection).status in {414, 431}
        assert alone_.control.heads == []
