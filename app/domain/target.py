r"""
Redirect targets: one parser produces the URL that is stored, and it is emitted unchanged.

The parser is ada, which implements the WHATWG URL standard as browsers and Node do. A second
parser (urlsplit, a regular expression) can disagree with it, which lets `http:\\evil` or
`java\nscript:` through. Only this module of the domain and `blocks` import a library: the rules
apply to what that parser returns. See docs/adr/0001.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import ada_url

from app.domain import app_targets
from app.domain.errors import FieldError, InvalidInput
from app.domain.own_hosts import is_own
from app.domain.policy import WEB, WEB_ONLY, TargetPolicy

# Counted in canonical form. Servers and proxies take request lines of 8 kB.
MAX_LENGTH = 8192
# As it is typed: more is not worth a parser's time.
_MAX_TYPED = 65_536
MAX_HOST_LENGTH = 253
_HOST_TOO_LONG = f"must name a host of at most {MAX_HOST_LENGTH} characters"
_DEFAULT_PORTS = {"http:": 80, "https:": 443}
_PARTS = ("username", "password", "protocol", "hostname", "port", "pathname")

# The WHATWG parser drops or rewrites these characters. In a target they are a mistake or an attempt
# to hide something, so they are refused before parsing.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029\ufeff\ud800-\udfff]")
_NAME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SCHEME = re.compile(r"https?://[^/?#]", re.IGNORECASE)
# A host with an empty port before two slashes: what a scheme looks like in its place.
_SECOND_SCHEME = re.compile(r"https?://[^/?#]*://", re.IGNORECASE)
# The characters of a header value: granian silently drops a Location with any other.
_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+\Z")

# Printable ASCII that RFC 3986 allows in no path, query or fragment, and a % without two hex digits.
_OUTSIDE_PART = re.compile(r"[\"<>\\^`{|}\[\]#]|%(?![0-9A-Fa-f]{2})")
# A superset of those in a whole URL, in which # and brackets may be delimiters.
_PERHAPS_OUTSIDE = re.compile(r"[\"<>\\^`{|}\[\]]|%(?![0-9A-Fa-f]{2})|#.*#")
# Most URLs, told apart by one pass over a set of characters.
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?@!$&'()*+,;=-]+\Z")
# The canonical form of most targets: a name as host, without user, port and fragment. Its parts are the
# scheme, the host and the path.
_PLAIN_PAGE = re.compile(
    r"(https?:)//((?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)(/[A-Za-z0-9._~:/@!$&'()*+,;=-]*)"
    r"(?:\?[A-Za-z0-9._~:/?@!$&'()*+,;=-]*)?\Z"
)
_HOST = re.compile(r"https?://(\[[^\]]*\]|[^/?#:]+)")
_MORE_THAN_A_HOST = re.compile(r"[/?#@:\[\]]")
_AFTER_AUTHORITY = re.compile(r"[/?#]")
_PORT = re.compile(r":[0-9]*\Z")


def canonical(text: str, *, own_hosts: Collection[str], policy: TargetPolicy = WEB_ONLY) -> str:
    """
    Return the canonical form of the URL *text*: pure printable ASCII, ready to be emitted.

    Args:
        text: the URL as the user sent it.
        own_hosts: addresses of this service, see `app.domain.own_hosts`; a target there could loop.
        policy: the schemes that are allowed, and the hosts that are not.

    Raises:
        InvalidInput: with one error for the field `long_url`.
    """
    _check_typed(text)
    found = _NAME.match(text)
    scheme = found[1].lower() if found else ""
    if scheme not in policy.schemes or (scheme in WEB and not _SCHEME.match(text)):
        raise _invalid("url_scheme", _must_start(policy.schemes))
    href = _web_target(text, own_hosts) if scheme in WEB else app_targets.canonical(scheme, text)
    _check_length(href)
    if not is_emittable(href):
        raise _invalid("url_malformed", "has no printable ASCII form")
    if policy.blocks is not None and policy.blocks.has_host(href):
        raise _invalid("url_blocked_host", "leads to a host that the operator blocks")
    if policy.domains is not None and policy.domains.has_target(href):
        raise _own()
    return href


def _check_typed(text: str) -> None:
    if not text:
        raise _invalid("url_empty", "must not be empty")
    if len(text) > _MAX_TYPED:
        raise _invalid("url_too_long", f"is {len(text)} characters, the most is {MAX_LENGTH}")
    if _FORBIDDEN.search(text):
        message = "must not contain spaces, control characters or backslashes"
        raise _invalid("url_forbidden_character", message)


def _check_length(href: str) -> None:
    if len(href) > MAX_LENGTH:
        message = f"is {len(href)} characters in canonical form, the most is {MAX_LENGTH}"
        raise _invalid("url_too_long", message)


def _web_target(text: str, own_hosts: Collection[str]) -> str:
    try:
        href = ada_url.normalize_url(text)
    except ValueError:
        raise _invalid("url_malformed", "is not a valid URL") from None
    plain = _PLAIN_PAGE.match(href)
    # Parts of the canonical form are read off: to ask the parser for each takes as long as all the rest.
    if plain is not None and len(plain[2]) <= MAX_HOST_LENGTH:
        _check_length(href)
        _check_not_doubled(text, plain[2])
        _check_not_own(plain[2], _DEFAULT_PORTS[plain[1]], plain[3], own_hosts)
        return href
    url = ada_url.parse_url(text, _PARTS)
    href = uri_reference(href)
    _check_length(href)
    if url["username"] or url["password"]:
        raise _invalid("url_credentials", "must not contain a user name or password")
    _check_host(url["hostname"])
    _check_not_doubled(text, url["hostname"])
    port = int(url["port"] or _DEFAULT_PORTS[url["protocol"]])
    _check_not_own(url["hostname"], port, url["pathname"], own_hosts)
    if port == 0:
        raise _invalid("url_port", "port 0 cannot be connected to")
    return href


def host_of(url: str) -> str:
    """Return the host of *url*, which is canonical, without its port; in brackets if it is IPv6."""
    match = _HOST.match(url)
    return match[1] if match else ""


def parts(url: str) -> tuple[str, str, str]:
    """
    Return *url*, which is canonical, in three parts; the second decides where it leads.

    Of a web page it is the host, of any other target the scheme.
    """
    scheme, slashes, rest = url.partition("://")
    if scheme not in WEB or not slashes:
        name, colon, rest = url.partition(":")
        return "", name, colon + rest
    authority, path = _split(rest, _AFTER_AUTHORITY)
    user, at, place = authority.rpartition("@")
    port = _PORT.search(place)
    host = place[: port.start()] if port else place
    return f"{scheme}{slashes}{user}{at}", host, place[len(host) :] + path


def unicode_host(url: str) -> str:
    """Return the host of *url*, which is canonical, in Unicode; empty if it is ASCII in Unicode as well."""
    before, host, _ = parts(url)
    if not before or "xn--" not in host:
        return ""
    name: str = ada_url.idna_to_unicode(host)
    return "" if name == host else name


def canonical_host(text: str) -> str:
    """
    Return the host *text* as `canonical` writes it: in ASCII, lower-case, IPv4 and IPv6 in their short forms.

    Raises:
        InvalidInput: it is no host of a target, or more than a host; the field is `long_url`.
    """
    # As it is typed: an address with thousands of zeros is a short one in canonical form.
    if len(text) > MAX_HOST_LENGTH:
        raise _invalid("url_host", _HOST_TOO_LONG)
    bare = text.rpartition("]")[2] if text.startswith("[") else text
    if _MORE_THAN_A_HOST.search(bare):
        raise _invalid("url_host", "must be a host alone, without scheme, port or path")
    return host_of(canonical(f"https://{text}/", own_hosts=(), policy=WEB_ONLY))


def is_plain(url: str) -> bool:
    """Is *url* a header value that `uri_reference` leaves alone? Most are."""
    return _PLAIN.match(url) is not None


def _must_start(schemes: Collection[str]) -> str:
    """Return how a target begins, as the end of a sentence."""
    web = " or ".join(f"{scheme}://" for scheme in ("http", "https") if scheme in schemes)
    others = " or ".join(f"{scheme}:" for scheme in sorted(schemes) if scheme not in WEB)
    named = f"must start with {web} and name a host" if web else ""
    return f"{named}, or start with {others}" if named and others else named or f"must start with {others}"


def uri_reference(url: str) -> str:
    """
    Return *url*, as a WHATWG parser writes it, in the characters of RFC 3986.

    Browsers leave `|`, `^` or a stray `%` alone; strict clients refuse a `Location` that has them. A
    server reads the escape as the character. Cheap for a URL that needs no escape.
    """
    if is_plain(url) or _PERHAPS_OUTSIDE.search(url) is None:
        return url
    scheme, slashes, rest = url.partition("//")
    authority, path = _split(rest, _AFTER_AUTHORITY)
    before, hash_mark, fragment = path.partition("#")
    # Brackets are an IPv6 address in the authority, and nothing anywhere else.
    host = authority if authority[:1] == "[" else escaped(authority)
    return f"{scheme}{slashes}{host}{escaped(before)}{hash_mark}{escaped(fragment)}"


def escaped(part: str) -> str:
    """Return *part* of a URL with what RFC 3986 allows in no part percent-encoded; escapes stay."""
    return _OUTSIDE_PART.sub(lambda match: f"%{ord(match[0]):02X}", part)


def _split(text: str, at: re.Pattern[str]) -> tuple[str, str]:
    match = at.search(text)
    return (text[: match.start()], text[match.start() :]) if match else (text, "")


def is_emittable(location: str) -> bool:
    """Is *location* valid as a header value, unchanged?"""
    return _PRINTABLE_ASCII.match(location) is not None


def _check_host(host: str) -> None:
    if not host or len(host) > MAX_HOST_LENGTH:
        raise _invalid("url_host", _HOST_TOO_LONG)
    bare = host.removesuffix(".")
    if not host.startswith("[") and any(not 1 <= len(label) <= 63 for label in bare.split(".")):
        raise _invalid("url_host", "has an empty host label, or one over 63 characters")


def _check_not_doubled(text: str, host: str) -> None:
    """Refuse https://https://example.com: it is valid, and its host is `https`."""
    top = host.removesuffix(".").rpartition(".")[2]
    if top in ("http", "https") or _SECOND_SCHEME.match(text):
        message = f"names {host} as its host: is its scheme there twice, or are two addresses run together?"
        raise _invalid("url_host", message)


def _check_not_own(host: str, port: int, path: str, own_hosts: Collection[str]) -> None:
    if own_hosts and is_own(host, port, path, own_hosts):
        raise _own()


def _own() -> InvalidInput:
    return _invalid("url_own_host", "points back to this service")


def _invalid(code: str, message: str) -> InvalidInput:
    return InvalidInput([FieldError("long_url", code, message)])
