"""The address of a client: its peer's, or the one that trusted proxies forward."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

from hopgate_limiter.contrib import _arguments

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX_SOCKET = "unix:"
# The longest address, with port and brackets, is shorter.
_MAX_HOP = 64


def client_address(peer: str, forwarded_for: Sequence[str], trusted: tuple[IpNetwork, ...]) -> str:
    """
    Return the address of the client behind *peer*.

    X-Forwarded-For counts only if *peer* is a trusted proxy, and then from the right, up to the first
    address that is not a trusted proxy: a client can forge everything left of it. Empty list elements
    do not count (RFC 9110 §5.6.1.2). An unreadable entry ends the walk at the hop before it.

    Args:
        peer: the address that opened the connection.
        forwarded_for: all X-Forwarded-For headers, in order.
        trusted: networks of trusted proxies.
    """
    if not trusted:
        return peer
    known = _known(peer, trusted)
    if known is None or not known[1]:
        return peer
    return _forwarded(peer, forwarded_for, trusted)


def _forwarded(address: str, forwarded_for: Sequence[str], trusted: tuple[IpNetwork, ...]) -> str:
    """Walk from the right, beginning behind the trusted proxy at *address*."""
    for element in reversed(",".join(forwarded_for)[-4096:].split(",")):
        hop = element.strip(" \t")
        if not hop:
            continue
        known = _known(hop, trusted) if len(hop) <= _MAX_HOP else None
        if known is None:
            return address
        address, is_trusted = known
        if not is_trusted:
            return address
    return address


def _find(hop: str, trusted: tuple[IpNetwork, ...]) -> tuple[str, bool] | None:
    """Return the address in *hop*, and whether it is trusted; None if there is no address in it."""
    address = _parse(hop)
    if address is None:
        return None
    parsed = ipaddress.ip_address(address)
    return address, any(parsed in network for network in trusted)


# Parsing an address takes as long as the rest of a redirect; proxies and most clients come again.
_known = lru_cache(maxsize=4096)(_find)


def _network(name: object) -> IpNetwork:
    networks = (
        str,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
    )
    _arguments.of_type("a trusted proxy", "a network, an address or 'unix:'", name, *networks)
    try:
        return ipaddress.ip_network(name)  # type: ignore[arg-type]
    except ValueError as error:
        message = f"a trusted proxy must be a network, an address or 'unix:', got {name!a}: {error}"
        raise ValueError(message) from None


def _parse(hop: str) -> str | None:
    text = hop
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


class TrustedProxies:
    """The proxies whose X-Forwarded-For counts. None by default: then a client's address is its peer's."""

    __slots__ = ("_has_sockets", "_networks", "are_none")

    are_none: bool
    """Whether no proxy is trusted: read at every request, where `bool()` costs a call."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        """
        Read networks and addresses, "10.0.0.0/8", "::1"; "unix:" stands for peers of a Unix socket.

        Raises:
            ValueError: one of them is neither.
        """
        _arguments.of_type("proxies", "several networks, as ['10.0.0.0/8']", proxies, Iterable)
        names = (proxies,) if isinstance(proxies, str) else tuple(proxies)
        self._networks: tuple[IpNetwork, ...] = tuple(_network(name) for name in names if name != UNIX_SOCKET)
        self._has_sockets = UNIX_SOCKET in names
        self.are_none = not (self._networks or self._has_sockets)

    def __bool__(self) -> bool:
        return not self.are_none

    def client(self, peer: str | None, forwarded_for: Sequence[str]) -> str | None:
        """Return the client's address; None for a client at the other end of a Unix socket."""
        if peer:
            return client_address(peer, forwarded_for, self._networks)
        if not self._has_sockets:
            return None
        return _forwarded("", forwarded_for, self._networks) or None
