"""Targets that point back to this service, by every alias; targets beside it are others' pages."""

from __future__ import annotations

import pytest

from app.bootstrap import own_hosts
from app.domain import rules, target
from app.domain.errors import InvalidInput
from app.domain.link import LinkFields
from app.settings import Settings


def is_own(url, **settings):
    own = own_hosts(Settings(**settings))
    target.canonical(url, own_hosts=())
    try:
        target.canonical(url, own_hosts=own)
    except InvalidInput:
        return True
    return False


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "x.localhost", "127.0.0.1", "127.1", "127.255.0.3", "0x7f.1", "0177.0.0.1",
        "2130706433", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "0",
        "[::]",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "settings",
    [
        {"bind": "127.0.0.1:21470"},
        {"bind": "0.0.0.0:21470"},
        {"bind": "[::1]:21470", "base_url": "https://hop.example"},
        {"bind": "127.0.0.1:21470", "base_url": "https://hop.example/s"},
        {"bind": "127.0.0.1:8000", "base_url": "http://localhost:21470"},
    ],
)
def test_loopback_alias_of_the_gateway_is_own(host, settings):
    assert is_own(f"http://{host}:21470/loopy", **settings)


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("192.0.2.5:8000", "http://192.0.2.5:8000/x"),
        ("192.0.2.5:8000", "http://[::ffff:192.0.2.5]:8000/x"),
        ("192.0.2.5:8000", "http://3221225989:8000/x"),
        ("[2001:db8::5]:8000", "http://[2001:DB8:0::5]:8000/x"),
        ("127.0.0.1:8000", "http://localhost/x"),
        ("127.0.0.1:8000", "https://127.0.0.1/x"),
    ],
)
def test_bind_address_and_local_proxy_are_own(bind, url):
    assert is_own(url, bind=bind, base_url="https://hop.example")


@pytest.mark.parametrize(
    "url",
    [
        "https://hop.example/x",
        "http://HOP.example.:8080/x",
        "https://www.hop.example",
        "https://hop%2Eexample",
    ],
)
@pytest.mark.parametrize("base_url", ["https://hop.example", "HTTPS://www.hop.example"])
def test_public_host_and_its_www_twin_are_own(url, base_url):
    assert is_own(url, base_url=base_url)


@pytest.mark.parametrize(
    "url",
    [
        "https://hop.example.org/",
        "https://hop.example.evil.example/",
        "http://localhost:3000/",
        "http://192.0.2.5:8001/",
        "https://sub.hop.example/",
    ],
)
def test_other_hosts_and_ports_are_not_own(url):
    assert not is_own(url, base_url="https://hop.example", bind="192.0.2.5:8000")


@pytest.mark.parametrize(
    "path",
    ["/s", "/s/", "/s/x", "/%73/x", "//s/x", "/a/../s/x", "/a/%2e%2e/s/x", "/a/..%2Fs/x", "/s?x", "/s/x#y"],
)
def test_pages_below_the_base_path_are_own(path):
    assert is_own(f"https://hop.example{path}", base_url="https://hop.example/s")
    assert is_own(f"http://www.hop.example:8080{path}", base_url="https://hop.example/s/")


@pytest.mark.parametrize("path", ["", "/", "/about", "/sale", "/S/x", "/a/s/x", "/s/../about", "/?/s/x"])
def test_pages_beside_the_base_path_are_not_own(path):
    assert not is_own(f"https://hop.example{path}", base_url="https://hop.example/s")


def test_loop_is_refused_in_create_change_and_import():
    """All of them check fields by the same rule."""
    with pytest.raises(InvalidInput, match="points back"):
        rules.checked(LinkFields(long_url="http://0x7f.1:8000/x"), own_hosts=own_hosts(Settings()))
