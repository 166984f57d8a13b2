"""Addresses as keys."""

from ipaddress import ip_address, ip_network

import pytest
from hopgate_limiter import client_key
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budgets import examples

# A busy machine is no reason to fail.
quick = settings(max_examples=examples(60))


@quick
@given(st.ip_addresses(v=4).map(str))
def test_v4_is_its_own_key(address):
    """An IPv4 address is returned as it is, the very same object."""
    assert client_key(address) is address
    assert client_key(f"::ffff:{address}") == address


@quick
@given(st.ip_addresses(v=6), st.integers(1, 128))
def test_v6_is_its_network(address, prefix):
    """An IPv6 address becomes its network in canonical form."""
    if address.ipv4_mapped is not None:
        return
    expected = ip_network((address, prefix), strict=False)
    key = client_key(str(address), v6_prefix=prefix)

    # Compared as values: a mapped address inside a network has several spellings.
    assert ip_network(key) == expected
    assert client_key(f"[{address.exploded.upper()}]", v6_prefix=prefix) == key
    assert client_key(f"{address}%eth0", v6_prefix=prefix) == key


def test_v6_neighbours_share_a_network():
    """A /48 joins the networks that a /64 separates."""
    a, b = "2001:db8:1:1::1", "2001:db8:1:2::1"
    assert client_key(a) == client_key("2001:db8:1:1:ffff::") == "2001:db8:1:1::/64"
    assert client_key(a) != client_key(b)
    assert client_key(a, v6_prefix=48) == client_key(b, v6_prefix=48) == "2001:db8:1::/48"


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "1.2.3",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.4:80",
        "1.2.3.4 ",
        "١.2.3.4",
        "[1.2.3.4]",
        "[::1",
        "::1%",
    ],
)
def test_bad_address(text):
    """Nonsense is a ValueError that quotes it."""
    with pytest.raises(ValueError, match="address must be an IP address without a port"):
        client_key(text)


@pytest.mark.parametrize("prefix", [-1, 0, 129, 10**30])
def test_bad_prefix(prefix):
    """1 to 128 bits, for any address."""
    for address in ("::1", "1.2.3.4"):
        with pytest.raises(ValueError, match=f"v6_prefix must be 1 to 128 bits, got {prefix}"):
            client_key(address, v6_prefix=prefix)


@quick
@given(st.text(max_size=30) | st.text(alphabet="0123456789abcdef:.[]%", max_size=45))
def test_client_key_is_stricter_than_ipaddress(text):
    """Stricter than the standard library, never looser (brackets and zones apart)."""
    try:
        client_key(text)
    except ValueError:
        return
    bare = text.removeprefix("[").removesuffix("]")
    assert ip_address(bare.split("%")[0]).version in {4, 6}


@pytest.mark.parametrize(
    ("peer", "key"),
    [(None, "unix:"), ("unix:/app.sock", "unix:/app.sock"), ("testclient", "testclient")],
)
def test_peers_without_an_address(peer, key):
    """A Unix socket and Starlette's test client are clients, too."""
    assert client_key(peer) == key


def test_the_argument_is_named():
    """What is not a text is refused by name."""
    with pytest.raises(TypeError, match="address must be str or None, not bytes"):
        client_key(b"192.0.2.1")  # type: ignore[arg-type]
