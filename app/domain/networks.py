"""Networks that an API key may be used from. An IPv4 address written as IPv6 is the IPv4 address."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from app.domain.errors import FieldError, InvalidInput

MAX_NETWORKS = 50
_Network = IPv4Network | IPv6Network
# Of an IPv4 address written as IPv6, so many bits are the same for all.
_MAPPED_BITS = 96


def checked_networks(texts: Sequence[str], field: str) -> tuple[str, ...]:
    """
    Return the networks *texts*, such as 10.0.0.0/8 or 2001:db8::1, in canonical form, each once.

    Raises:
        InvalidInput: one is none, or there are too many.
    """
    errors: list[FieldError] = []
    networks: dict[str, None] = {}
    if len(texts) > MAX_NETWORKS:
        errors.append(FieldError(field, "addresses_too_many", f"names more than {MAX_NETWORKS} networks"))
    for text in texts[:MAX_NETWORKS]:
        try:
            networks[str(_network(text))] = None
        except ValueError:
            message = (
                f"must name networks without host bits, such as 10.0.0.0/8 or 2001:db8::1: not {text!r:.60}"
            )
            errors.append(FieldError(field, "address_invalid", message))
    if errors:
        raise InvalidInput(errors)
    return tuple(networks)


def covers(networks: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether each of *others* is within one of *networks*; both are in canonical form."""
    mine = _parsed(tuple(networks))
    return all(any(_is_within(one, each) for each in mine) for one in _parsed(tuple(others)))


# An address is looked up at each request of a restricted key.
@lru_cache(maxsize=4096)
def allows(networks: tuple[str, ...], address: str) -> bool:
    """Return whether *address*, in any form, is within one of *networks*, which are in canonical form."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:  # a peer without an IP address
        return False
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    return any(found in network for network in _parsed(networks))


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(map(ip_network, networks))


def _network(text: str) -> _Network:
    network = ip_network(text)
    if isinstance(network, IPv4Network) or network.prefixlen < _MAPPED_BITS:
        return network
    mapped = network.network_address.ipv4_mapped
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _is_within(inner: _Network, outer: _Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
