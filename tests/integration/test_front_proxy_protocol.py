"""The PROXY protocol: trusted proxies name the client before its first byte, and no others may connect."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from app.web.front import Caps
from tests.integration.front_alone import Alone, alone
from tests.integration.front_gateway import TARGET
from tests.servers import haproxy
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_store
from tests.servers.raw_http import answer_on, read_answer

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = bytes([192, 0, 2, 1, 192, 0, 2, 9]) + struct.pack("!HH", 56324, 443)
SIX = ipaddress.ip_address("2001:db8::1").packed + bytes(16) + struct.pack("!HH", 7, 8)
# The source of the connection itself.
OWN = "127.0.0.1:"


def block(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    length = len(rest) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, length) + rest


@pytest.fixture(scope="module")
def front() -> Iterator[Alone]:
    with alone(trusted=LOOPBACK, proxy_protocol=True) as alone_:
        yield alone_


@pytest.fixture(scope="module")
def hasty() -> Iterator[Alone]:
    """A front that gives a header little time."""
    with alone(trusted=LOOPBACK, proxy_protocol=True, caps=Caps(head_s=0.5)) as alone_:
        yield alone_


def peer_of(front: Alone) -> str:
    """Return the peer that the application received with the last request."""
    found = re.search(rb"x-hopgate-peer: (\S+)", front.control.heads[-1])
    assert found is not None
    return found[1].decode()


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n", "192.0.2.1:56324"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 7 8\r\n", "[2001:db8::1]:7"),
        (b"PROXY UNKNOWN\r\n", OWN),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", OWN),
        (block(0x21, 0x11, FOUR), "192.0.2.1:56324"),
        (block(0x21, 0x11, FOUR + b"\x20\0\1x" + b"\x01\0\x08http/1.1"), "192.0.2.1:56324"),
        (block(0x21, 0x11, FOUR + bytes(4000)), "192.0.2.1:56324"),
        (block(0x21, 0x21, SIX), "[2001:db8::1]:7"),
        (block(0x20, 0x00, b""), OWN),
        (block(0x20, 0x11, FOUR), OWN),
        (block(0x21, 0x00, b"any"), OWN),
        (block(0x21, 0x31, bytes(216)), OWN),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_client_is_the_one_that_the_proxy_names(front, header, peer, step):
    """Whatever pieces the header comes in, and with the request in the same one."""
    with front.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = header + REQUEST
        for start in range(0, len(header) if step == 1 else len(sent), step):
            connection.sendall(sent[start : start + step])
            if len(header) > 1000:
                continue
            time.sleep(0.0005 if step < 100 else 0)
        if step == 1:
            connection.sendall(REQUEST)

        assert answer_on(connection).status == 200
    assert peer_of(front).startswith(peer)


@pytest.mark.parametrize(
    "header",
    [
        REQUEST,
        b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\n" + REQUEST,
        b"PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n" + REQUEST,
        b"PROXY TCP4 192.0.2.1 192.0.2.9 65536 443\r\n" + REQUEST,
        b"PROXY TCP4 2001:db8::1 2001:db8::2 7 8\r\n" + REQUEST,
        b"PROXY UDP4 192.0.2.1 192.0.2.9 56324 443\r\n" + REQUEST,
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n" + REQUEST,
        b"PROXY " + b"x" * 10_000,
        b"proxy unknown\r\n" + REQUEST,
        block(0x21, 0x11, FOUR[:-1]) + REQUEST,
        block(0x21, 0x12, FOUR) + REQUEST,
        block(0x22, 0x11, FOUR) + REQUEST,
        block(0x11, 0x11, FOUR) + REQUEST,
        block(0x21, 0x11, FOUR, length=65_535) + bytes(65_535),
        SIGNATURE[:-1] + b"\0" + REQUEST,
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100),
    ],
    ids=range(16),
)
def test_anything_else_is_closed(hasty, header):
    seen = len(hasty.control.heads)
    with hasty.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(header)

        assert read_answer(connection) is None
    assert len(hasty.control.heads) == seen


@pytest.mark.parametrize(
    "part", [b"", b"P", b"PROXY TCP4 192.0.2.1", SIGNATURE, block(0x21, 0x11, b"", length=12)]
)
@pytest.mark.parametrize("is_ended", [True, False])
def test_header_that_does_not_come_is_closed(hasty, part, is_ended):
    """It has the time of a head."""
    with hasty.connect() as connection:
        connection.sendall(part)
        if is_ended:
            connection.shutdown(socket.SHUT_WR)

        assert connection.recv(1) == b""
    eventually(lambda: hasty.front.connections == 0, what="it is not counted")


def test_header_that_trickles_has_no_more_time(hasty):
    with hasty.connect() as connection:
        with contextlib.suppress(OSError):
            for byte in b"PROXY UNKNOWN " + b"x" * 90:
                connection.sendall(bytes([byte]))
                time.sleep(0.03)
        assert read_answer(connection) is None


def test_header_comes_once(front):
    with front.connect() as connection:
        connection.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n" * 2 + REQUEST)

        assert answer_on(connection).status == 400


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n", b""])
def test_others_may_not_connect(header):
    """A header of theirs could name any client."""
    with (
        alone(trusted=[ipaddress.ip_network("10.0.0.0/8")], proxy_protocol=True) as front,
        front.connect() as connection,
    ):
        with contextlib.suppress(OSError):
            connection.sendall(header + REQUEST)

        assert read_answer(connection) is None
        assert front.control.heads == []


def test_header_is_none_where_it_is_off():
    with alone(trusted=LOOPBACK) as front, front.connect() as connection:
        connection.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n" + REQUEST)

        assert answer_on(connection).status == 400


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"front": "off", "trusted_proxies": "127.0.0.0/8"}, "HOPGATE_FRONT=on"),
        ({"front": "on"}, "HOPGATE_TRUSTED_PROXIES"),
    ],
)
def test_what_it_needs_is_checked_at_the_start(tmp_path, settings, missing):
    with pytest.raises(ValueError, match=f"HOPGATE_PROXY_PROTOCOL needs {missing}"):
        Settings(data_dir=tmp_path, proxy_protocol="on", **settings)


# --- with a real proxy ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("proxied")
    settings = {
        "HOPGATE_DATA_DIR": str(folder / "data"),
        **UNLIMITED,
        "HOPGATE_FRONT": "on",
        "HOPGATE_LIMIT_REDIRECT": "3/h burst 3",
        "HOPGATE_PROXY_PROTOCOL": "on",
        "HOPGATE_TRUSTED_PROXIES": "127.0.0.1",
    }
    make_store(settings)
    done = hopgate(settings, "links", "create", TARGET, "--slug", "known")
    assert done.returncode == 0, done.stderr
    with ProxiedGateway(settings, folder) as gateway:
        yield gateway


class ProxiedGateway(Gateway):
    """A gateway that answers to the PROXY protocol alone."""

    def _is_healthy(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PROXY UNKNOWN\r\n" + REQUEST)
                answer = read_answer(connection)
        except OSError:
            return False
        return answer is not None and answer.status == 200


@pytest.mark.skipif(haproxy.binary() is None, reason="needs HAProxy: install the package haproxy")
@pytest.mark.parametrize(
    ("options", "net"), [("send-proxy", 2), ("send-proxy-v2", 3), ("send-proxy-v2-ssl", 4)]
)
def test_clients_of_haproxy_are_limited_by_their_own_addresses(gateway, tmp_path, options, net):
    """Each of them has a budget, and the proxy, which checks the gateway's health, has none to spend."""
    with haproxy.PrivateHaproxy(tmp_path, gateway.port, options) as proxy:

        def visit(source: str) -> int:
            to = ("127.0.0.1", proxy.port)
            with socket.create_connection(to, timeout=20, source_address=(source, 0)) as connection:
                connection.sendall(b"GET /known HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return answer_on(connection).status

        statuses = {
            source: [visit(source) for _ in range(4)] for source in (f"127.0.{net}.2", f"127.0.{net}.3")
        }

        assert statuses == {source: [302, 302, 302, 429] for source in statuses}


def test_own_commands_find_the_gateway(gateway, tmp_path: Path):
    """They name no client: the connection is their own."""
    done = hopgate(gateway._settings, "doctor")

    assert "no gateway answers" not in done.stdout + done.stderr
    assert re.search(r"gateway\W.*ok|answers", done.stdout), done.stdout
    shown = hopgate(gateway._settings, "top", "--once")
    assert shown.returncode == 0, shown.stderr
