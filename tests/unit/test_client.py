from __future__ import annotations

from ipaddress import ip_network

import pytest

from app.web.client import client_address, peer_address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("client", "address"),
    [("203.0.113.7:80", "203.0.113.7"), ("[2001:db8::1]:80", "2001:db8::1"), ("unix", ""), ("", "")],
)
def test_the_peer_is_told_apart_from_its_port(client, address):
    assert peer_address(client) == address


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody is trusted who is not configured.
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        # The right-most hop that no trusted proxy has.
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        # All hops are ours: the left-most of them.
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        # Ports, brackets, mapped addresses.
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        # Garbage ends the walk at the last hop that is believed.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, garbage, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["x" * 10_000], "10.0.0.1"),
    ],
)
def test_forwarded_addresses_are_believed_from_the_right_and_from_trusted_proxies_only(
    peer, forwarded, client
):
    assert client_address(peer, forwarded, TRUSTED) == client


def test_without_trusted_proxies_nothing_is_believed():
    assert client_address("10.0.0.1", ["198.51.100.1"], ()) == "10.0.0.1"
