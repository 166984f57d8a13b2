"""The address of a client: its peer's, or the one that trusted proxies forward."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

from hopgate_limiter.contrib import client_address

from app.settings import IpNetwork

__all__ = ["client_address", "is_trusted", "peer_address"]


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
