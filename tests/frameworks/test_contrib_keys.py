"""Keys of requests, and addresses behind proxies."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
from hopgate_limiter.contrib import RateLimits, TrustedProxies, by_address, by_header, by_user, client_address
from hopgate_limiter.contrib._call import EnvironCall

ROWS = json.loads((Path(__file__).parents[1] / "data" / "client_addresses.json").read_text())["rows"]


def a_call(peer="198.51.100.7", trusted=(), **variables):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": peer, **variables}
    return EnvironCall(environ, TrustedProxies(trusted))


# --- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_client_address_is_that_of_the_table(row):
    trusted = tuple(map(ip_network, row["trusted"]))

    assert client_address(row["peer"], row["forwarded_for"], trusted) == row["client"]
    assert TrustedProxies(row["trusted"]).client(row["peer"], row["forwarded_for"]) == (row["client"] or None)


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ((), "203.0.113.9", "198.51.100.1", "203.0.113.9"),
        (("10.0.0.0/8",), "203.0.113.9", "198.51.100.1", "203.0.113.9"),
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.66, 198.51.100.1", "198.51.100.1"),
        (("10.0.0.0/8",), "10.0.0.1", "198.51.100.1, 10.9.9.9", "198.51.100.1"),
        (("10.0.0.0/8",), "", "198.51.100.1", None),
        (("unix:",), "", "192.0.2.66, 198.51.100.1", "198.51.100.1"),
        (("unix:", "10.0.0.0/8"), "", "198.51.100.1, 10.0.0.1", "198.51.100.1"),
        (("unix:",), "", "nonsense", None),
        (("unix:",), "203.0.113.9", "198.51.100.1", "203.0.113.9"),
    ],
)
def test_forwarded_addresses_count_behind_trusted_proxies(trusted, peer, forwarded, address):
    """From the right; a Unix socket has to be named."""
    assert a_call(peer=peer, trusted=trusted, HTTP_X_FORWARDED_FOR=forwarded).address == address


def test_bad_proxy_is_refused():
    with pytest.raises(ValueError, match="proxy"):
        RateLimits(trusted_proxies=["proxy"])


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("", "unix:"),
        ("testclient", "testclient"),
        ("no address", "peer:no address"),
    ],
)
def test_key_of_an_address_never_fails(peer, key):
    assert by_address()(a_call(peer=peer)) == key


def test_prefix_of_ipv6_networks_is_checked_at_once():
    assert by_address(v6_prefix=48)(a_call(peer="2001:db8:1:2::3")) == "2001:db8:1::/48"
    with pytest.raises(ValueError, match="v6_prefix"):
        by_address(v6_prefix=129)


def test_key_of_a_header_hides_its_value():
    key = by_header("X-Api-Key")
    one = key(a_call(HTTP_X_API_KEY="secret"))

    assert one == key(a_call(HTTP_X_API_KEY="secret", peer="203.0.113.9"))
    assert one != key(a_call(HTTP_X_API_KEY="other"))
    assert "secret" not in str(one)
    assert len(str(key(a_call(HTTP_X_API_KEY="x" * 10_000)))) < 64
    assert key(a_call()) == "198.51.100.7"
    assert by_header("x-api-key", otherwise=lambda _: None)(a_call()) is None


def test_key_of_a_user_falls_back_to_the_address():
    assert by_user()(a_call(REMOTE_USER="alice")) == "user:alice"
    assert by_user()(a_call()) == "198.51.100.7"
