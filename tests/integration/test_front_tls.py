"""TLS of the front: versions, renewal without a stop, and files that cannot be used."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.domain.errors import SettingsError
from app.settings import Settings, warnings
from app.web.certificates import Certificates
from app.web.front import Caps
from tests.integration.front_alone import Alone, alone
from tests.integration.front_gateway import TARGET
from tests.servers.certificates import Authority
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_store
from tests.servers.raw_http import answer_on

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def files(authority, tmp_path) -> Certificates:
    """Files that a test may replace."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    shutil.copy(authority.certificate(days=30), chain)
    shutil.copy(authority.key, key)
    key.chmod(0o600)
    return Certificates(chain, key)


def client(
    authority: Authority, *, version: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.authority)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@contextlib.contextmanager
def secured(port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def name_of(connection: ssl.SSLSocket) -> str:
    certificate = connection.getpeercert()
    assert certificate is not None
    found = re.search(r"'commonName', '(\w+)'", str(certificate["subject"]))
    assert found is not None
    return found[1]


@pytest.fixture
def front(files) -> Iterator[Alone]:
    with alone() as alone_:
        files.secure(alone_.front)
        yield alone_


@pytest.fixture
def hasty(files) -> Iterator[Alone]:
    """A front that gives a handshake, and a head behind it, little time."""
    with alone(caps=Caps(head_s=1.0)) as alone_:
        files.secure(alone_.front)
        yield alone_


# --- connections -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_in_use_are_spoken(front, authority, version):
    with secured(front.port, client(authority, version=version)) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert answer_on(connection).status == 200


def test_older_versions_are_refused(front, authority):
    context = client(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, OSError)), secured(front.port, context):
        pass


@pytest.mark.parametrize(
    ("offered", "chosen"), [((), None), (("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1")]
)
def test_protocol_is_chosen(front, authority, offered, chosen):
    with secured(front.port, client(authority, alpn=offered)) as connection:
        assert connection.selected_alpn_protocol() == chosen


def test_protocol_that_is_not_spoken_is_refused(front, authority):
    with pytest.raises(ssl.SSLError), secured(front.port, client(authority, alpn=("acme-tls/1",))):
        pass


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x16", b"\x16\x03\x01\x02\0\x01", REQUEST, b"\x16\x03\x01\xff\xff" + bytes(70_000)],
    ids=["nothing", "a byte", "half a hello", "HTTP", "too much"],
)
def test_handshake_has_its_time(hasty, sent):
    """Also one in plain HTTP, or of megabytes: nothing of it is answered."""
    with hasty.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk

    # At most an alert.
    assert len(received) < 50
    assert hasty.control.heads == []
    eventually(lambda: hasty.front.connections == 0, what="it is not counted")


def test_head_behind_a_handshake_has_its_time(hasty, authority):
    with secured(hasty.port, client(authority)) as connection:
        connection.sendall(b"GET /")
        assert connection.recv(100) == b""


def test_answer_that_is_not_read_ends(files, authority):
    """Behind TLS too, which has buffers of its own."""

    def large(connection: socket.socket, _body: bytes) -> None:
        body = b"x" * 16_000_000
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    with alone(large, caps=Caps(write_s=0.3)) as alone_:
        files.secure(alone_.front)
        with secured(alone_.port, client(authority)) as connection:
            connection.sendall(REQUEST)

            eventually(lambda: alone_.front.connections == 0, what="the connection is closed")


def test_large_answer_arrives(files, authority):
    body = os.urandom(3_000_000)

    def large(connection: socket.socket, _body: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    with alone(large) as alone_:
        files.secure(alone_.front)
        with secured(alone_.port, client(authority)) as connection:
            connection.sendall(REQUEST)
            assert answer_on(connection).body == body


# --- renewal -----------------------------------------------------------------------------------


def test_renewal_keeps_connections(front, files, authority):
    new, key = authority.another("renewed")
    with secured(front.port, client(authority)) as old:
        old.sendall(REQUEST)
        assert answer_on(old).status == 200

        Certificates(new, key).secure(front.front)

        old.sendall(REQUEST)
        assert answer_on(old).status == 200
        with secured(front.port, client(authority)) as later:
            assert (name_of(old), name_of(later)) == ("localhost", "renewed")


def broken(files: Certificates, authority: Authority, how: str) -> str:
    """Break the files; return what the message says."""
    match how:
        case "no file":
            files.chain.unlink()
            return "cannot read .*chain.pem: No such file"
        case "empty":
            files.chain.write_bytes(b"")
            return "there is no certificate"
        case "half":
            files.chain.write_bytes(files.chain.read_bytes()[:300])
            return "PEM|no certificate"
        case "noise":
            files.chain.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            return "cannot be used"
        case "key for certificate":
            shutil.copy(files.key, files.chain)
            return "there is no certificate"
        case "no key":
            files.key.write_bytes(b"")
            return "there is no private key"
        case "another key":
            shutil.copy(authority.another("other")[1], files.key)
            return "cannot be used"
        case _:
            raise AssertionError(how)


WAYS = ["no file", "empty", "half", "noise", "key for certificate", "no key", "another key"]


@pytest.mark.parametrize("how", WAYS)
def test_files_that_cannot_be_used_change_nothing(front, files, authority, how):
    says = broken(files, authority, how)

    with pytest.raises(SettingsError, match=says) as raised:
        files.secure(front.front)

    assert "\n" not in str(raised.value)
    with secured(front.port, client(authority)) as connection:
        assert name_of(connection) == "localhost"


@pytest.fixture
def settings(tmp_path, files) -> dict[str, str]:
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        **UNLIMITED,
        "HOPGATE_FRONT": "on",
        "HOPGATE_TLS_CERT": str(files.chain),
        "HOPGATE_TLS_KEY": str(files.key),
    }
    make_store(settings)
    done = hopgate(settings, "links", "create", TARGET, "--slug", "known")
    assert done.returncode == 0, done.stderr
    return settings


class SecuredGateway(Gateway):
    """A gateway that speaks TLS."""

    def _is_healthy(self) -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with secured(self.port, context) as connection:
                connection.sendall(REQUEST)
                return answer_on(connection).status == 200
        except OSError:
            return False


def test_sighup_renews_a_gateway(settings, files, authority, tmp_path):
    """Without a closed connection; files that cannot be used are one line in the log."""

    def now() -> str:
        with secured(gateway.port, client(authority)) as connection:
            return name_of(connection)

    with SecuredGateway(settings, tmp_path) as gateway, secured(gateway.port, client(authority)) as kept:
        assert now() == "localhost"
        good = files.chain.read_bytes()
        files.chain.write_bytes(good[:300])
        os.kill(gateway.pid, signal.SIGHUP)
        eventually(lambda: "the certificates stay as they were" in gateway.output, what="the log says so")
        assert len(re.findall("certificates stay as they were", gateway.output)) == 1
        assert "Traceback" not in gateway.output
        assert now() == "localhost"

        chain, key = authority.another("renewed")
        shutil.copy(chain, files.chain)
        shutil.copy(key, files.key)
        os.kill(gateway.pid, signal.SIGHUP)

        def is_used() -> bool:
            # It is idle for five seconds at most.
            kept.sendall(b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_on(kept).status == 302
            return now() == "renewed"

        eventually(is_used, what="the new certificate is used")
        assert hopgate(gateway._settings, "doctor").returncode == 0
        assert hopgate(gateway._settings, "top", "--once").returncode == 0
        assert f"https://127.0.0.1:{gateway.port}" in gateway.output


# --- before the start ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
def test_files_that_cannot_be_used_are_refused_at_the_start(settings, files, authority, how):
    says = broken(files, authority, how)

    done = hopgate({**settings, "HOPGATE_BIND": "127.0.0.1:1"}, "serve")

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.search(says, last), last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"front": "off"}, "HOPGATE_TLS_CERT needs HOPGATE_FRONT=on"),
        ({"tls_key": None}, "HOPGATE_TLS_CERT and HOPGATE_TLS_KEY, both or neither"),
        ({"tls_cert": None}, "HOPGATE_TLS_CERT and HOPGATE_TLS_KEY, both or neither"),
    ],
)
def test_what_it_needs_is_checked(tmp_path, files, changed, says):
    given = {"front": "on", "tls_cert": files.chain, "tls_key": files.key, **changed}
    with pytest.raises(ValueError, match=says):
        Settings(data_dir=tmp_path, **given)


def test_key_that_others_can_read_is_warned_of(tmp_path, files):
    settings = Settings(data_dir=tmp_path, front="on", tls_cert=files.chain, tls_key=files.key)
    assert warnings(settings) == []

    files.key.chmod(0o640)

    assert [line for line in warnings(settings) if "HOPGATE_TLS_KEY: other users can read" in line]


@pytest.mark.parametrize(
    ("days", "code", "says"),
    [
        (30, 0, r"ok\s+certificate\s+valid until"),
        (1, 0, "renew it, then send SIGHUP"),
        (-1, 1, "has expired"),
    ],
)
def test_doctor_reads_the_dates(settings, files, authority, days, code, says):
    shutil.copy(authority.certificate(days=days), files.chain)

    done = hopgate(settings, "doctor")

    assert done.returncode == code, done.stdout
    assert re.search(says, done.stdout), done.stdout


def test_dates_are_those_of_the_certificate(files):
    start, until = files.valid()

    assert until - start == timedelta(days=30)
    assert abs(start - datetime.fromtimestamp(time.time(), UTC)) < timedelta(hours=1)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"]
)
def test_dates_of_no_certificate_are_an_error(tmp_path, content):
    path = tmp_path / "none.pem"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match="has no certificate"):
        Certificates(path, Path("none")).valid()
