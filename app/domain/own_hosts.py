"""
The addresses of this service: a target below one of them could loop.

An own host is written as in a URL, without the scheme: `hop.example` on every port,
`localhost:8000` on one, `hop.example/s` with the pages below a path only. Every spelling of this
machine (127.0.0.1, [::1], 0x7f.1, 0.0.0.0, x.localhost) counts as `localhost`.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Collection
from urllib.parse import unquote

LOCALHOST = "localhost"
_ALIASES = frozenset({LOCALHOST, "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_SLASHES = re.compile("//+")


def site(host: str) -> str:
    """Return *host* in the one form that is compared; an IPv6 address has brackets."""
    name = host.lower().removesuffix(".")
    if name in _ALIASES or name.endswith(f".{LOCALHOST}"):
        return LOCALHOST
    try:
        address = ipaddress.ip_address(name.strip("[]")) if ":" in name or name[-1:].isdigit() else None
    except ValueError:
        return name
    if address is None:
        return name
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback or address.is_unspecified:
        return LOCALHOST
    return f"[{address}]" if address.version == 6 else str(address)


def own_hosts(
    host: str, port: int, base_path: str, *, bind: tuple[str, int], proxy_ports: Collection[int] = (80, 443)
) -> frozenset[str]:
    """
    Return the addresses of a service.

    Args:
        host: of its public URL; so is *port*.
        base_path: empty, or /like/this: other pages of *host* belong to others.
        bind: where it listens itself, with and without *base_path*.
        proxy_ports: where a proxy on this machine may listen.
    """
    name = site(host)
    bare = name.removeprefix("www.")
    names = {LOCALHOST} if name == LOCALHOST else {name, bare, f"www.{bare}"}
    return frozenset(
        {
            *(f"{own}{base_path}" for own in names),
            *(f"{LOCALHOST}:{own}{base_path}" for own in (port, *proxy_ports)),
            *(f"{own}:{bind[1]}" for own in (LOCALHOST, site(bind[0]))),
        }
    )


def is_own(host: str, port: int, path: str, own: Collection[str]) -> bool:
    """Does a URL with these parts lie below one of the addresses *own*?"""
    name = site(host)
    authorities = (name, f"{name}:{port}")
    for one in own:
        authority, slash, prefix = one.partition("/")
        if authority in authorities and (not slash or _is_below(path, f"/{prefix}")):
            return True
    return False


def _is_below(path: str, prefix: str) -> bool:
    """Compare as the most lenient proxy does: decoded, single slashes, without dots."""
    plain = posixpath.normpath(_SLASHES.sub("/", unquote(path)))
    return plain == prefix or plain.startswith(f"{prefix}/")
