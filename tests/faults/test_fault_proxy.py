"""The fault proxy injects the configured fault, and no other."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.servers.hopgate import eventually
from tests.servers.proxy import GOOD, SILENT, FaultProxy, Network


class Echo:
    """A TCP echo server that records what it receives."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.received = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    connection.sendall(data)
            except OSError:
                pass

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: FaultProxy):
    with ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := connection.recv(size - len(data))):
        data += chunk
    return data


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def test_good_network_delivers_both_ways(connect):
    connection = connect()
    data = bytes(range(256)) * 4000
    threading.Thread(target=connection.sendall, args=(data,)).start()
    assert read(connection, len(data)) == data


def test_silence_delivers_nothing_until_it_ends(proxy, echo, connect):
    connection = connect()
    connection.sendall(b"a")
    assert read(connection, 1) == b"a"
    proxy.become(SILENT)
    connection.sendall(b"b")
    assert is_silent(connection)
    assert echo.received == b"a"
    proxy.become(GOOD)
    assert read(connection, 1) == b"b"


def test_one_way_silence_passes_requests_only(proxy, echo, connect):
    connection = connect()
    proxy.become(Network(silent_down=True))
    connection.sendall(b"commit")
    eventually(lambda: echo.received == b"commit", 5)
    assert is_silent(connection)


def test_delayed_data_arrives_after_its_sender_closed(proxy, echo, connect):
    connection = connect()
    connection.sendall(b"1")
    read(connection, 1)
    proxy.become(Network(latency_s=0.3))
    connection.sendall(b"late")
    connection.close()
    assert echo.received == b"1"
    eventually(lambda: echo.received == b"1late", 5)


def test_latency_keeps_the_order(proxy, connect):
    connection = connect()
    proxy.become(Network(latency_s=0.03, jitter_s=0.03))
    for i in range(50):
        connection.sendall(b"%02d" % i)
        time.sleep(0.001)
    assert read(connection, 100) == b"".join(b"%02d" % i for i in range(50))


def test_slices_and_bandwidth_deliver_everything(proxy, connect):
    connection = connect()
    proxy.become(Network(slice_bytes=3, bytes_per_s=100_000))
    data = bytes(range(256)) * 4
    connection.sendall(data)
    assert read(connection, len(data)) == data


def test_refusal_affects_new_connections_only(proxy, connect):
    connection = connect()
    connection.sendall(b"a")
    read(connection, 1)
    proxy.become(Network(refuse=True))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    connection.sendall(b"b")
    assert read(connection, 1) == b"b"
    proxy.become(GOOD)
    again = connect()
    again.sendall(b"c")
    assert read(again, 1) == b"c"


def test_reset_reaches_the_client(proxy, connect):
    connection = connect()
    connection.sendall(b"a")
    read(connection, 1)
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        read(connection, 1)


def test_absent_server_gives_a_reset(echo, proxy):
    with FaultProxy(1) as dead, pytest.raises(ConnectionResetError):  # noqa: SIM117
        # The reset may arrive during the connect.
        with socket.create_connection(("127.0.0.1", dead.port), timeout=5) as connection:
            connection.recv(1)


def test_close_by_the_server_reaches_the_client(proxy, connect, echo):
    connection = connect()
    connection.sendall(b"a")
    read(connection, 1)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    eventually(lambda: proxy.connections == 0, 5)


def test_late_confirms_delay_confirms_only(echo):
    other, confirm = _frame(20, 11), _frame(60, 80)
    with FaultProxy(echo.port, speaks_amqp=True) as proxy, _connected(proxy) as client:
        proxy.become(Network(late_confirms=True))
        client.sendall(confirm + other[:5])
        client.sendall(other[5:])
        assert _receive(client, len(other)) == other

        proxy.become(GOOD)
        client.sendall(other)
        assert _receive(client, len(confirm + other)) == confirm + other


@pytest.mark.services
def test_lost_commit_is_committed_without_reply(postgres):
    url = postgres.create_database(migrated=False)
    with FaultProxy(postgres.port) as proxy, psycopg.connect(url, autocommit=True) as direct:
        direct.execute("CREATE TABLE t (n int)")

        def insert(n: int) -> None:
            through = url.replace(f":{postgres.port}", f":{proxy.port}")
            with psycopg.connect(through, autocommit=True) as client, client.transaction():
                for _ in range(2):
                    client.execute("INSERT INTO t VALUES (%s)", [n])

        proxy.become(Network(lost_commits=True))
        with pytest.raises(psycopg.OperationalError):
            insert(1)
        assert direct.execute("SELECT n FROM t").fetchall() == [(1,), (1,)]

        proxy.become(GOOD)
        insert(2)
        assert direct.execute("SELECT count(*) FROM t WHERE n = 2").fetchone() == (2,)


def _frame(class_id: int, method_id: int) -> bytes:
    payload = struct.pack(">HH", class_id, method_id) + b"more"
    return struct.pack(">BHI", 1, 1, len(payload)) + payload + b"\xce"


def _connected(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def _receive(client: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += client.recv(size - len(received))
    return received
