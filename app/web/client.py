"""Who is asking: the peer's address, or what trusted proxies say about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from app.settings import IpNetwork

# No address is longer than this, with a port and brackets.
_MAX_HOP = 64


def peer_address(client: str) -> str:
    """Return the address in granian's `client`, "203.0.113.7:54321", without port and brackets."""
    host = client.rpartition(":")[0]
    return host[1:-1] if host[:1] == "[" else host


def client_address(peer: str, forwarded_for: Sequence[str], trusted: tuple[IpNetwork, ...]) -> str:
    """
    Return the address of the client behind *peer*.

    Nothing a client sends is believed: X-Forwarded-For counts only if *peer* is a trusted
    proxy, and then from the right, up to the first address that no trusted proxy has. An
    unreadable entry ends the walk at the hop before it.

    Args:
        peer: who opened the connection.
        forwarded_for: all X-Forwarded-For headers, in order.
    """
    if not trusted:
        return peer
    known = _known(peer, trusted)
    if known is None or not known[1]:
        return peer
    address = peer
    for hop in reversed(",".join(forwarded_for)[-4096:].split(",")):
        known = _known(hop, trusted) if len(hop) <= _MAX_HOP else None
        if known is None:
            return address
        address, is_trusted = known
        if not is_trusted:
            return address
    return address


# Reading an address takes as long as the rest of a redirect; proxies and most clients come again.
@lru_cache(maxsize=4096)
def _known(hop: str, trusted: tuple[IpNetwork, ...]) -> tuple[str, bool] | None:
    """Return the address that *hop* names, and whether it is trusted; None if it names none."""
    address = _parse(hop)
    if address is None:
        return None
    parsed = ipaddress.ip_address(address)
    return address, any(parsed in network for network in trusted)


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
