"""The values of settings that need more than a type: service URLs, the base URL, addresses, networks."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from difflib import get_close_matches
from urllib.parse import unquote, urlsplit

import ada_url

from app.domain import lifetime
from app.domain.errors import InvalidInput

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MIN_COOL_DOWN = timedelta(days=1)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WEB_URL = re.compile(r"https?://[^/?#\\]", re.IGNORECASE)
# Every proxy passes these on as they are.
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
# All of IPv4; the part of IPv6 that is routed; IPv4 addresses written as IPv6.
_EVERYTHING = tuple(ipaddress.ip_network(text) for text in ("0.0.0.0/0", "2000::/3", "::ffff:0:0/96"))


# The APIs of other shorteners that a gateway may serve as well: see `app.web.dialects`.
DIALECTS = ("bitly", "shlink", "yourls")
# As a browser sends it: a scheme, which may be that of its extensions, a host and perhaps a port.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def dialects(names: Iterable[str]) -> Sequence[str]:
    """
    Return the dialects *names*, in any case, sorted and once each.

    Raises:
        ValueError: one is unknown.
    """
    wanted = sorted({name.lower() for name in names if name})
    for name in wanted:
        if name not in DIALECTS:
            near = get_close_matches(name, DIALECTS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            msg = f"{name} is no dialect, there are {', '.join(DIALECTS)}{hint}"
            raise ValueError(msg)
    return wanted


def origins(names: Iterable[str]) -> Sequence[str]:
    """
    Return the origins *names*, as browsers write them, sorted and once each; or `*` alone.

    Raises:
        ValueError: one is no origin, or `*` is not alone.
    """
    wanted = sorted({name for name in names if name})
    if "*" in wanted and len(wanted) > 1:
        raise ValueError("* allows every origin, so it must stand alone")
    for name in wanted:
        scheme, _, rest = name.partition("://")
        if name != "*" and (not _ORIGIN.fullmatch(name) or rest.endswith(_DEFAULT_PORTS.get(scheme, "\n"))):
            msg = (
                f"{name} is no origin as browsers send it: scheme://host in lower case, a port that is not"
                " the default one, no path and no slash at its end, such as https://app.example"
            )
            raise ValueError(msg)
    return wanted


def check_service_url(url: str, schemes: tuple[str, ...]) -> None:
    """
    Refuse a URL that its driver cannot parse: the driver would quote part of it, perhaps the password.

    Raises:
        ValueError: the message quotes nothing of the URL.
    """
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        msg = f"must start with one of {', '.join(f'{scheme}://' for scheme in schemes)}"
        raise ValueError(msg)
    if not _can_parse(url) or _STRAY_PERCENT.search(url):
        msg = "is not a URL; is every special character of the password percent-encoded?"
        raise ValueError(msg)


def without_secrets(url: str) -> str:
    """Return scheme, hosts and path of a service URL: no user, no password, no options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}"


def base_url(text: str) -> str:
    """
    Return the prefix of short URLs in canonical form, without a slash at the end.

    Raises:
        ValueError: it has a part that no short URL can have. A password is not quoted.
    """
    if "@" in text:
        raise ValueError("must not contain a user name or password: every short URL would show it")
    if not (_WEB_URL.match(text) and "\\" not in text and text.isprintable() and ada_url.check_url(text)):
        msg = f"{text!r} must be a URL with http:// or https:// and a host"
        raise ValueError(msg)
    if "?" in text or "#" in text:
        msg = f"{text!r} must not have a query or a fragment: a slug cannot follow it"
        raise ValueError(msg)
    url = ada_url.parse_url(text, ("origin", "hostname", "port", "pathname"))
    if url["hostname"].removesuffix(".") in ("http", "https"):
        msg = f"{text!r} names {url['hostname']} as its host: is its scheme there twice?"
        raise ValueError(msg)
    path = url["pathname"].rstrip("/")
    if url["port"] == "0":
        msg = f"{text!r}: port 0 cannot be connected to"
        raise ValueError(msg)
    if not _BASE_PATH.fullmatch(path):
        msg = f"{text!r}: the path may consist of letters, digits and - . _ ~ between single slashes"
        raise ValueError(msg)
    if path.split("/")[1:2] == ["api"]:
        msg = f"{text!r}: a path of /api would hide the API"
        raise ValueError(msg)
    return f"{url['origin']}{path}"


def host_and_port(bind: str) -> tuple[str, int]:
    """Return the two halves of a valid "HOST:PORT", brackets removed."""
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


def check_bind(value: str) -> None:
    """
    Refuse what is not "HOST:PORT".

    Raises:
        ValueError: with the reason.
    """
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        msg = f"{value!r} is not HOST:PORT"
        raise ValueError(msg)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        msg = f"{value!r}: an IPv6 address needs brackets, as in [::1]:8000"
        raise ValueError(msg)


def share(text: str) -> float:
    """
    Return the share, 0 to 1, that "off", "on" or a number means.

    Raises:
        ValueError: it is none of these.
    """
    word = text.strip().lower()
    try:
        found = {"off": 0.0, "on": 1.0}[word] if word in ("off", "on") else float(word)
    except ValueError:
        found = math.nan
    if not 0.0 <= found <= 1.0:
        msg = f"{text!r} is neither off nor on, nor a number from 0 to 1"
        raise ValueError(msg)
    return found


def networks(texts: Iterable[str]) -> tuple[IpNetwork, ...]:
    """
    Return the networks that *texts* name; an address is a network of one.

    Raises:
        ValueError: naming the text that is no network.
    """
    return tuple(_network(text.strip()) for text in texts if text.strip())


def pauses(text: str) -> tuple[timedelta, ...]:
    """
    Return the pauses that *text* lists, as in `5s 5m 2h`.

    Raises:
        ValueError: one of them cannot be read, or there are more than 20.
    """
    try:
        found = tuple(lifetime.parse(one) for one in text.replace(",", " ").split())
    except InvalidInput as error:
        raise ValueError(error.errors[0].message) from None
    if len(found) > 20:
        raise ValueError("has more than 20 pauses")
    return found


def is_everything(trusted: Sequence[IpNetwork]) -> bool:
    """Do *trusted* cover half of the internet or more?"""
    return any(
        2 * sum(_common(network, everything) for network in _collapsed(trusted, everything.version))
        >= everything.num_addresses
        for everything in _EVERYTHING
    )


def _network(text: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        whole = ipaddress.ip_network(text, strict=False)
    except ValueError:
        msg = f"{text!r} is neither an address nor a network such as 10.0.0.0/8"
        raise ValueError(msg) from None
    address = text.partition("/")[0]
    msg = f"{text!r} is an address inside of a network: write {address} for the one, {whole} for the other"
    raise ValueError(msg)


def _collapsed(trusted: Sequence[IpNetwork], version: int) -> Sequence[IpNetwork]:
    if version == 4:
        return list(ipaddress.collapse_addresses(n for n in trusted if isinstance(n, ipaddress.IPv4Network)))
    return list(ipaddress.collapse_addresses(n for n in trusted if isinstance(n, ipaddress.IPv6Network)))


def cool_down(text: str) -> timedelta | None:
    """Return how long slugs of removed links stay taken; None: for ever. Raises ValueError."""
    if text == "never":
        return None
    try:
        found = lifetime.parse(text)
    except InvalidInput:
        message = "must be never, or a number of h, d or w, as in 90d"
        raise ValueError(message) from None
    # Requests are remembered for as long, and no visit of the removed link is on its way any more.
    if found < MIN_COOL_DOWN:
        message = "must be 1d at least"
        raise ValueError(message)
    return found


def _common(one: IpNetwork, other: IpNetwork) -> int:
    """Return how many addresses the two networks share: of two, one contains the other, or none."""
    first = max(int(one.network_address), int(other.network_address))
    last = min(int(one.broadcast_address), int(other.broadcast_address))
    return max(0, last - first + 1)


def _can_parse(url: str) -> bool:
    try:
        url.encode()  # an environment that is not UTF-8 gives surrogates, which no driver can send
        parts = urlsplit(url)
        # A PostgreSQL URL may name several hosts.
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
        has_host_or_path = all(host.hostname for host in hosts) or bool(parts.path)
        return has_host_or_path and all((host.port or 1) > 0 for host in hosts)
    except ValueError:
        return False
