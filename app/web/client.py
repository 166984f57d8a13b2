"""Who is asking: the peer's address, or what trusted proxies say about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from app.settings import IpNetwork


def peer_address(client: str) -> str:
    """Return the address in granian's `client`, "203.0.113.7:54321", without port and brackets."""
    host = client.rpartition(":")[0]
    return host[1:-1] if host[:1] == "[" else host


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[IpNetwork]) -> str:
    """
    Return the address of the client behind *peer*.

    Nothing a client sends is believed: X-Forwarded-For counts only if *peer* is a trusted
    proxy, and then from the right, up to the first address that no trusted proxy has. An
    unreadable entry ends the walk at the hop before it.

    Args:
        peer: who opened the connection.
        forwarded_for: all X-Forwarded-For headers, in order.
    """
    if not trusted or not _is_trusted(peer, trusted):
        return peer
    address = peer
    for hop in reversed(",".join(forwarded_for)[-4096:].split(",")):
        parsed = _parse(hop)
        if parsed is None:
            return address
        address = parsed
        if not _is_trusted(address, trusted):
            return address
    return address


def _is_trusted(address: str, trusted: Sequence[IpNetwork]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(ipaddress.ip_address(parsed) in network for network in trusted)


def _parse(hop: str) -> str | None:
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
