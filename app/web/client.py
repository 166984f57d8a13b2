"""The address of a client: its peer's, or the one that trusted proxies forward."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from hopgate_limiter.contrib import client_address

from app.settings import IpNetwork

__all__ = ["client_address", "is_local", "is_trusted", "network_of", "peer_address"]

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
# A request with one of these came through a proxy, whichever machine the proxy is on.
_FORWARDING = (
    *("forwarded", "via", "x-real-ip"),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"),
)


def peer_address(client: str) -> str:
    """Return the address in granian's `client`, "203.0.113.7:54321", without port and brackets."""
    host = client.rpartition(":")[0]
    return host[1:-1] if host[:1] == "[" else host


# Proxies are few, and parsing an address takes as long as the rest of a redirect.
@lru_cache(maxsize=1024)
def is_trusted(peer: str, trusted: tuple[IpNetwork, ...]) -> bool:
    """Is *peer*, the address that opened the connection, a trusted proxy?"""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in trusted)


# Parsing an address takes as long as the rest of a line in the log.
@lru_cache(maxsize=4096)
def network_of(address: str) -> str | None:
    """
    Return the network of a client's *address*, as far as logs may name it: 256 addresses, of IPv6 a /48.

    None if it is no address.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return None
    found = getattr(found, "ipv4_mapped", None) or found
    return str(ip_network((found.packed, 24 if found.version == 4 else 48), strict=False))


def is_local(client: str, headers: Any) -> bool:
    """
    Did a program on this machine send the request, and no proxy?

    Host must name this machine, too: a page on the web may give a name of its own the address 127.0.0.1
    (DNS rebinding), and then reads what a browser on this machine may read.

    Args:
        client: the peer as granian writes it, "127.0.0.1:54321".
        headers: as granian shows them.
    """
    try:
        address = ip_address(peer_address(client))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    host = (headers.get("host") or "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    is_direct = not any(header in headers for header in _FORWARDING)
    return (mapped or address).is_loopback and name in _LOCAL_HOSTS and is_direct
