"""Every form of the URL of Redis that is documented, against servers; what is none says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hopgate_limiter import Limiter, RedisSync
from redis import Redis

from tests.servers.certificates import Authority
from tests.servers.ports import free_ports
from tests.servers.redis import PrivateRedis

PASSWORD = "p@ss:w/o?r#d%+"
QUOTED = "p%40ss%3Aw%2Fo%3Fr%23d%25%2B"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a socket") / "redis.sock"


@pytest.fixture(scope="module")
def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def server(path: Path, has_ipv6: bool) -> Iterator[PrivateRedis]:
    hosts = ["127.0.0.1", "::1"] if has_ipv6 else ["127.0.0.1"]
    with PrivateRedis("--bind", *hosts, "--unixsocket", str(path)) as server:
        with Redis(port=server.port) as admin:
            admin.acl_setuser(
                "us/er", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=["+@all"]
            )
        yield server


TCP = "127.0.0.1:{port}"
SOCKET = "{socket}"


@pytest.mark.parametrize(
    ("url", "user", "database"),
    [
        (f"redis://{TCP}", "default", 0),
        (f"valkey://{TCP}/3", "default", 3),
        (f"redis://us%2Fer:{QUOTED}@{TCP}/2", "us/er", 2),
        (f"redis://{TCP}?username=us%2Fer&password={QUOTED}&db=4", "us/er", 4),
        (f"redis://us%2Fer@{TCP}?password={QUOTED}", "us/er", 0),
        (f"redis://us%2Fer:{QUOTED}@{TCP}/?password=another", "us/er", 0),
        (f"redis://{TCP}/1?db=5&protocol=3", "default", 5),
        ("redis://[::1]:{port}/1", "default", 1),
        (f"redis+unix://{SOCKET}", "default", 0),
        (f"unix://{SOCKET}?db=2", "default", 2),
        (f"unix://us%2Fer:{QUOTED}@{SOCKET}?db=3", "us/er", 3),
        (f"valkey+unix://{SOCKET}?user=us%2Fer&pass={QUOTED}&db=1", "us/er", 1),
    ],
)
def test_a_url_that_is_read(server, path, has_ipv6, url, user, database):
    if "::1" in url and not has_ipv6:
        pytest.skip("no IPv6")
    url = url.format(port=server.port, socket=str(path).replace(" ", "%20"))
    with Redis(port=server.port) as admin:
        admin.flushall()
        sync = RedisSync(url, timeout=5.0, require=True)
        with closing(Limiter("10/d", sync=sync)) as limiter:
            limiter.hit("k")
            own = str(admin.client_id())
            clients = [client for client in admin.client_list() if client["id"] != own]
            assert {(client["user"], client["db"]) for client in clients} == {(user, str(database))}
        assert set(admin.info("keyspace")) == {f"db{database}"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guarded(authority: Authority) -> Iterator[int]:
    """The port of a Redis that asks its clients for a certificate."""
    (port,) = free_ports(1)
    files = {"cert": authority.certificate(), "key": authority.key, "ca-cert": authority.authority}
    options = [text for name, path in files.items() for text in (f"--tls-{name}-file", str(path))]
    with PrivateRedis("--tls-port", str(port), "--tls-auth-clients", "yes", *options):
        yield port


def serve(url: str) -> None:
    with closing(Limiter("10/d", sync=RedisSync(url, timeout=5.0))) as limiter:
        limiter.ping()


def test_a_client_certificate(authority, guarded, tmp_path):
    url = f"rediss://localhost:{guarded}/0?ssl_ca_certs={authority.authority}"
    certificate = authority.certificate()

    serve(f"{url}&ssl_certfile={certificate}&ssl_keyfile={authority.key}")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + authority.key.read_bytes())
    serve(f"{url}&ssl_certfile={both}")
    with pytest.raises(ConnectionError, match=r"(?i)certificate"):
        serve(url)
    with pytest.raises(ConnectionError, match=r"(?i)certificate|unknown"):  # the authority of the system
        serve(f"rediss://localhost:{guarded}?ssl_certfile={both}")


def test_a_certificate_may_be_replaced(authority, guarded, tmp_path):
    """Files are read at each connection, so a certificate that has expired is renewed without a restart."""
    mine = tmp_path / "mine.pem"
    mine.write_bytes(authority.certificate(days=-1).read_bytes() + authority.key.read_bytes())
    url = f"rediss://localhost:{guarded}?ssl_ca_certs={authority.authority}&ssl_certfile={mine}"
    with closing(Limiter("10/d", sync=RedisSync(url, timeout=5.0))) as limiter:
        with pytest.raises(ConnectionError):
            limiter.ping()
        mine.write_bytes(authority.certificate().read_bytes() + authority.key.read_bytes())
        limiter.ping()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("rediss://:hunter2@h?ssl_ca_certs=/no/hunter2", "the file of ssl_ca_certs: No such file"),
        ("rediss://:hunter2@h?ssl_certfile={text}&ssl_keyfile={text}", "of ssl_certfile: no CERTIFICATE"),
        ("rediss://:hunter2@h?ssl_ca_certs={text}", "of ssl_ca_certs: no CERTIFICATE"),
        ("rediss://:hunter2@h?ssl_certfile={certificate}", "of ssl_keyfile: no PRIVATE KEY"),
        ("rediss://:hunter2@h?ssl_keyfile={text}", "ssl_keyfile needs ssl_certfile"),
        ("redis://:hunter2@h?ssl_ca_certs={text}", "ssl_ca_certs needs TLS, by rediss://"),
        ("unix:///x?pass=hunter2&ssl_certfile={text}", "ssl_certfile needs TLS"),
        ("redis://:hunter2@h?db=one", "db must be a number"),
        ("redis://:hunter2@h?db=-1", "db must be a number"),
        ("redis://:hunter2@h/-1", "the database must be a number"),
        ("redis://h?password=hunter2&password=hunter2", "'password' is given twice"),
        ("redis://h?password=hunter2&protocol=4", "protocol must be 2 or 3"),
        ("rediss://:hunter2@h?ssl_cert_reqs=none", "'ssl_cert_reqs' is not supported, only db, username"),
        ("redis://:pa?hunter2=1@h", "the parameter '\\?' is not supported"),
        ("unix://:hunter2@x", "an absolute path, after three slashes"),
        ("unix://x/y?pass=hunter2", "an absolute path, after three slashes"),
        ("redis://:hunter2@[::1", "expected redis://"),
    ],
)
def test_a_url_that_is_refused(authority, tmp_path, url, what):
    """In one line that names the argument and what is accepted, and shows no password."""
    text = tmp_path / "text"
    text.write_text("hunter2")
    with pytest.raises(ValueError, match=what) as refused:
        Limiter("10/s", sync=RedisSync(url.format(text=text, certificate=authority.certificate())))
    message = str(refused.value)
    assert message.startswith("url: ")
    assert "rediss+cluster://" in message
    assert "hunter2" not in message
    assert "\n" not in message
