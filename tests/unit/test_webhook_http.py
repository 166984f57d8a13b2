"""What a webhook may lead to, and what its server may answer: real sockets on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from app.adapters.webhook_http import HttpSender
from app.domain.addresses import may_connect
from app.ports import Undeliverable
from tests.servers.certificates import Authority

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    handler: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)

    server = await asyncio.start_server(handle, host, 0, ssl=tls)
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


async def send(port: int, *, timeout_s: float = 5, host: str = "127.0.0.1", **more) -> int:
    sender = HttpSender(**{"networks": LOOPBACK, "timeout_s": timeout_s, **more})
    return await sender.send(f"http://{host}:{port}/in?x=1", {"webhook-id": "evt_1"}, b"{}")


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
        return await HttpSender(networks=LOOPBACK, timeout_s=5, **more).send(url, {}, b"{}")

    async with serving(handler, tls=tls) as port:
        trusting = ssl.create_default_context(cafile=str(authority.authority))
        assert await ask(f"https://localhost:{port}/", tls=lambda: trusting) == 200
        with pytest.raises(Undeliverable, match="certificate"):
            await ask(f"https://localhost:{port}/")
        with pytest.raises(Undeliverable, match="certificate"):
            await ask(f"https://other.example:{port}/", tls=lambda: trusting, resolve=_here)


async def _here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]
