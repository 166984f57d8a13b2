"""What a webhook may lead to, and what its server may answer: real sockets on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from app.adapters.webhook_http import HttpSender, LookUps
from app.domain.addresses import may_connect
from app.domain.webhooks import RetryPolicy, asked_pause
from app.ports import HookAnswer, Undeliverable
from tests.servers.certificates import Authority

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    handler: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)

    server = await asyncio.start_server(handle, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def answering(text: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return handle


async def answered(port: int, *, timeout_s: float = 5, host: str = "127.0.0.1", **more) -> HookAnswer:
    sender = HttpSender(**{"networks": LOOPBACK, "timeout_s": timeout_s, **more})
    return await sender.send(f"http://{host}:{port}/in?x=1", {"webhook-id": "evt_1"}, b"{}")


async def send(port: int, **more) -> int:
    return (await answered(port, **more)).status


PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1"]
REFUSED = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
    *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.1", "192.88.99.1"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:1.1.1.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *(
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
    ),
    *("fec0::1", "ff02::1", "2606:4700::1%1", "3fff::1", "", "localhost", "0x7f.1", "2130706433", "127.1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_allowed(address):
    assert may_connect(address)


@pytest.mark.parametrize("address", REFUSED)
def test_other_address_is_refused(address):
    assert not may_connect(address)


def test_operator_allows_networks():
    assert may_connect("10.1.2.3", [ipaddress.ip_network("10.1.2.0/24")])
    assert not may_connect("10.1.3.3", [ipaddress.ip_network("10.1.2.0/24")])
    assert not may_connect("::ffff:10.1.2.3", [ipaddress.ip_network("10.1.2.0/24")])


async def test_request_is_whole():
    got: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        got.append(head + await reader.readexactly(2))
        writer.write(b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")

    async with serving(handle) as port:
        assert await send(port) == 204

    lines = got[0].decode().split("\r\n")
    assert lines[0] == "POST /in?x=1 HTTP/1.1"
    assert {f"host: 127.0.0.1:{port}", "content-length: 2", "webhook-id: evt_1"} <= set(lines)
    assert lines[-1] == "{}"


async def test_private_address_is_not_connected_to():
    connections = 0

    async def handle(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    async with serving(handle) as port:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"):
            with pytest.raises(Undeliverable, match="no public address"):
                await send(port, host=host, networks=())
    assert connections == 0


async def test_connection_goes_to_the_address_that_was_checked():
    """A name that leads elsewhere at the next look-up finds no second look-up."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        only = [ipaddress.ip_network("127.0.0.1/32")]
        assert await send(port, host="rebinding.example", resolve=resolve, networks=only) == 200
        assert asked == ["rebinding.example"]
        with pytest.raises(Undeliverable, match="no public address"):
            await send(port, host="rebinding.example", resolve=resolve, networks=only)


async def test_refused_addresses_of_a_name_are_passed_over():
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["10.0.0.1", "::1", "127.0.0.1"]

    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        assert await send(port, host="some.example", resolve=resolve) == 200


async def test_address_that_cannot_be_reached_is_passed_over():
    """A name with an IPv6 address, on a machine without a route to any."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["2001:db8::1", "127.0.0.2", "127.0.0.1"]

    networks = [*LOOPBACK, ipaddress.ip_network("2001:db8::/32")]
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        assert await send(port, host="some.example", resolve=resolve, networks=networks) == 200


async def test_silent_address_leaves_time_for_the_next():
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1", "127.0.0.2"]

    # Connections to the first wait: its queue is full, and nothing takes them.
    silent = socket.socket()
    with silent, ExitStack() as waiting:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n"), "127.0.0.2", port=port):
            assert await send(port, host="some.example", resolve=resolve, timeout_s=10) == 200


async def test_port_0_is_no_other_port():
    with pytest.raises(Undeliverable, match="connection failed"):
        await send(0)


async def test_silent_name_servers_delay_no_other_names():
    """Each name is looked up once at a time, however many messages wait for it."""
    asked: list[str] = []
    ends = threading.Event()

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        if host != "well.example":
            ends.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    sender = HttpSender(networks=LOOPBACK, timeout_s=20, resolve=LookUps(look_up).resolve)
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        hosts = [f"silent{number}.example" for number in range(6)] * 8
        waiting = [asyncio.create_task(sender.send(f"http://{host}:{port}/", {}, b"")) for host in hosts]
        await asyncio.sleep(0)
        assert (await sender.send(f"http://well.example:{port}/", {}, b"")).status == 200
        assert len(asked) == 7
        ends.set()
        assert {(await task).status for task in waiting} == {200}


async def test_redirect_is_not_followed():
    async with serving(answering(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n")) as port:
        assert await send(port) == 302


async def test_proxy_of_the_environment_is_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        assert await send(port) == 200


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"x" * 100_000,
        b"HTTP/1.1 100 x\r\n\r\n" * 50,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00",
        b"<html>the answer of HTTP/0.9</html>\n",
        b"HTTP/1.1 100 x\r\n" + b"a" * 20_000 + b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    ],
)
async def test_garbage_is_no_answer(text):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(text)(reader, writer)
        writer.close()

    async with serving(handle) as port:
        with pytest.raises(Undeliverable, match="no HTTP"):
            await send(port)


@pytest.mark.parametrize("informational", [b"", b"x: y\r\n", b"a: b\r\nlink: </x>; rel=preload\r\n"])
async def test_informational_answers_are_passed_over(informational):
    text = b"HTTP/1.1 100 Continue\r\n" + informational + b"\r\nHTTP/1.1 103 Early Hints\r\n\r\n"
    async with serving(answering(text + b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")) as port:
        assert await send(port) == 202


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (b"retry-after: 120\r\n\r\n", "120"),
        (
            b"a: b\r\nRETRY-AFTER:Fri, 31 Dec 1999 23:59:59 GMT\nretry-after: 5\r\n\r\n",
            "Fri, 31 Dec 1999 23:59:59 GMT",
        ),
        (b"retry-after: \xff\r\n\r\n", "\xff"),
        (b"\r\nretry-after: 1\r\n", None),
        (b"retry-after: 1\r\n", None),
        (b"", None),
        (b"x" * 100_000, None),
        (b"a: b\r\n" * 10_000 + b"retry-after: 1\r\n\r\n", None),
    ],
)
async def test_retry_after_of_a_failure_is_read_as_far_as_it_is_there(headers, value):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 503 Busy\r\n" + headers)(reader, writer)
        writer.close()

    async with serving(handle) as port:
        assert await answered(port) == HookAnswer(503, value)


async def test_endless_headers_hide_no_status():
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 410 Gone\r\n")(reader, writer)
        while True:
            writer.write(b"a: b\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(handle) as port:
        assert await answered(port) == HookAnswer(410)


AT = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[(None, 0), ("", 0), ("0", 0), (" 120 ", 120), ("9" * 60, 10**9), ("9" * 5000, 0)],
        ("Thu, 31 Jan 2030 12:01:00 GMT", 60),
        ("Thu, 31 Jan 2030 12:01:00 -0000", 60),
        ("Thu, 31 Jan 2030 14:01:00 +0200", 60),
        ("Thu, 31 Jan 2030 11:59:00 GMT", 0),
        *[
            (text, 0)
            for text in ("-5", "1.5", "+5", "soon", "٣", "Fri, 99 Foo 2030", "1, 2", "12:00", "\xff")
        ],
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert asked_pause(text, AT).total_seconds() == seconds


def test_receiver_moves_an_attempt_no_further_than_the_longest_pause():
    policy = RetryPolicy(pauses=(timedelta(seconds=10), timedelta(hours=1)))

    def pause(attempts: int, **asked: float) -> float | None:
        found = policy.pause(attempts, lambda: 0.5, asked=timedelta(**asked))
        return None if found is None else found.total_seconds()

    assert [pause(1), pause(1, seconds=5), pause(1, minutes=5), pause(1, days=9)] == [10, 10, 300, 3600]
    assert pause(3, seconds=1) is None


async def test_closed_connection_is_no_answer():
    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(handle) as port:
        with pytest.raises(Undeliverable):
            await send(port)
    with pytest.raises(Undeliverable, match="connection failed"):
        await send(port)


async def test_endless_body_is_not_read():
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 200 OK\r\n\r\n")(reader, writer)
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except ConnectionError:
            ended.set()

    ended = asyncio.Event()
    async with serving(handle) as port:
        assert await send(port) == 200
        async with asyncio.timeout(5):
            await ended.wait()


async def test_slow_answer_takes_a_bounded_time():
    """However many bytes come in between."""

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(100):
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(handle) as port:
        began = time.monotonic()
        with pytest.raises(Undeliverable, match=r"no answer within 0\.3 s"):
            await send(port, timeout_s=0.3)
    assert time.monotonic() - began < 5


async def test_slow_look_up_takes_a_bounded_time():
    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    with pytest.raises(Undeliverable, match="no answer within"):
        await send(1, timeout_s=0.1, resolve=resolve)


async def test_certificate_is_verified(tmp_path):
    authority = Authority(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.certificate(), authority.key)
    handler = answering(b"HTTP/1.1 200 OK\r\n\r\n")

    async def ask(url: str, **more) -> int:
        return (await HttpSender(networks=LOOPBACK, timeout_s=5, **more).send(url, {}, b"{}")).status

    async with serving(handler, tls=tls) as port:
        trusting = ssl.create_default_context(cafile=str(authority.authority))
        assert await ask(f"https://localhost:{port}/", tls=lambda: trusting) == 200
        with pytest.raises(Undeliverable, match="certificate"):
            await ask(f"https://localhost:{port}/")
        with pytest.raises(Undeliverable, match="certificate"):
            await ask(f"https://other.example:{port}/", tls=lambda: trusting, resolve=_here)


async def _here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]
