"""
Addresses that this service connects to on behalf of a client: those of the public internet, and no others.

A name is no protection: it may lead to any address, and to another one at the next look-up. So the address is
checked to which the connection is made.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Listed here: what the standard library counts as private differs between its releases.
_REFUSED_4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: the metadata of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "168.63.129.16/32",  # the metadata of Azure
    )
]
# All else of IPv6 is refused: IPv4-mapped, NAT64, unique local, link-local, site-local, multicast.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_6 = [
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID and others
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address is within
        "3fff::/20",
    )
]


def may_connect(address: str, allowed: Collection[IpNetwork] = ()) -> bool:
    """
    Is *address* one of the public internet, or of a network that the operator has *allowed*?

    Anything but a plain IP address is not.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(ip in network for network in allowed if network.version == ip.version):
        return True
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _REFUSED_4)
    return ip.scope_id is None and ip in _GLOBAL_6 and not any(ip in network for network in _REFUSED_6)
