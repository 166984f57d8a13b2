"""
Targets of other schemes than those of the web, which the operator has allowed: `mailto:`, `tel:`, app links.

What is stored is a URI of RFC 3986 and nothing else; a mail has addresses and text, a call has a number.
"""

from __future__ import annotations

import re

import ada_url

from app.domain.blocks import blocked_host
from app.domain.errors import FieldError, InvalidInput

# RFC 3986 without %, and escapes.
_URI = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})+\Z")
# What it takes nowhere, a second #, and a % without two hex digits.
_OUTSIDE = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]|%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_AUTHORITY = re.compile(r"//([^/?#]*)")
# One spelling of each host, so that a blocked one is recognised; and none that a program takes for an option.
_SERVER = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._~-]*)?(?::[0-9]{1,5})?\Z")
# Browsers read a host after any number of slashes.
_SPECIAL = frozenset({"ftp", "ws", "wss"})

# RFC 6068: dot-atoms of RFC 5322, of which % / ? # and others stand escaped.
_LOCAL_PART = re.compile(r"(?:[A-Za-z0-9.!$&'*+/=?^_`{|}~-]|%[2-7][0-9A-Fa-f]|%[89A-Fa-f][0-9A-Fa-f])+\Z")
_MAX_LOCAL = 192
_MAX_ADDRESSES = 50
# A header that a mail program would obey otherwise, such as an attachment, is no text.
_MAIL_FIELDS = frozenset({"to", "cc", "bcc", "subject", "body", "in-reply-to"})

# RFC 3966, without * and #: with them, some phones run a command as soon as they read it.
_NUMBER = re.compile(r"\+?[0-9().-]*[0-9][0-9().-]*\Z")
_MAX_DIGITS = 32
_PHONE_PARAMETER = re.compile(
    r"(?:ext=[0-9().-]*[0-9][0-9().-]*|phone-context=(?:\+[0-9().-]*[0-9][0-9().-]*|[A-Za-z0-9.-]+)"
    r"|isub=[A-Za-z0-9.-]+)\Z"
)
_MAX_CALL = 256


def canonical(scheme: str, text: str) -> str:
    """
    Return the canonical form of *text*, which has *scheme*, no space, no control character and no backslash.

    Raises:
        InvalidInput: with one error for the field `long_url`.
    """
    rest = text[len(scheme) + 1 :]
    if not rest:
        raise _invalid("url_malformed", f"has nothing after {scheme}:")
    match scheme:
        case "mailto":
            rest = _mail(rest)
        case "tel":
            rest = _call(rest)
        case _:
            rest = _app_link(scheme, rest)
    href = f"{scheme}:{rest}"
    if not _URI.match(href):
        raise _invalid("url_malformed", "is not a URI of RFC 3986")
    return href


def _mail(rest: str) -> str:
    """Return the addresses and the text of a mail (RFC 6068)."""
    addresses, mark, query = rest.partition("?")
    if "#" in rest:
        raise _invalid("url_mail", "must not contain #: write %23")
    to = ",".join(_addresses(addresses)) if addresses else ""
    fields = []
    for field in query.split("&") if mark else ():
        name, equals, value = field.partition("=")
        if name.lower() not in _MAIL_FIELDS or not equals:
            allowed = ", ".join(sorted(_MAIL_FIELDS))
            raise _invalid("url_mail", f"has the field {name[:40]!r}; a mail may have {allowed}")
        if name.lower() in ("to", "cc", "bcc"):
            value = ",".join(_addresses(value))
        value = _escaped(value)
        if any(match[0].upper() not in ("%0D", "%0A") for match in _CONTROL.finditer(value)) or (
            name.lower() != "body" and _CONTROL.search(value)
        ):
            raise _invalid("url_mail", f"has a control character in {name}")
        fields.append(f"{name}={value}")
    if not to and not fields:
        raise _invalid("url_mail", "has neither an address nor a text")
    return f"{to}{mark}{'&'.join(fields)}"


def _addresses(text: str) -> list[str]:
    addresses = text.replace("%40", "@").replace("%2C", ",").replace("%2c", ",").split(",")
    if len(addresses) > _MAX_ADDRESSES:
        raise _invalid("url_mail", f"has {len(addresses)} addresses, the most is {_MAX_ADDRESSES}")
    return [_address(one) for one in addresses]


def _address(text: str) -> str:
    local, at, domain = text.rpartition("@")
    local = _escaped(local)
    if not at or len(local) > _MAX_LOCAL or not _LOCAL_PART.match(local) or _CONTROL.search(local):
        raise _invalid("url_mail", f"has {text[:80]!r}, which is no address such as name@example.com")
    try:
        if ":" in domain or "[" in domain:
            raise _invalid("url_mail", "has an address at an IP address")
        return f"{local}@{_host(domain)}"
    except InvalidInput:
        raise _invalid("url_mail", f"has an address at {domain[:80]!r}, which is no host") from None


def _host(text: str) -> str:
    """Return *text* as a host of the DNS. Raises InvalidInput."""
    blocked_host(text)
    host: str = ada_url.parse_url(f"http://{text}/", ("hostname",))["hostname"]
    return host


def _call(rest: str) -> str:
    """Return the number to call, with its parameters (RFC 3966)."""
    number, *parameters = rest.split(";")
    if not _NUMBER.match(number) or sum(map(str.isdigit, number)) > _MAX_DIGITS or len(rest) > _MAX_CALL:
        raise _invalid("url_tel", "must be a number of digits and -.(), as in tel:+1-201-555-0123")
    if not all(map(_PHONE_PARAMETER.match, parameters)):
        raise _invalid("url_tel", "may have the parameters ext, isub and phone-context only")
    return rest


def _app_link(scheme: str, rest: str) -> str:
    """Return what an app gets: its server, if it names one, has no password."""
    authority = _AUTHORITY.match(rest)
    if authority is not None and "@" in authority[1]:
        raise _invalid("url_credentials", "must not contain a user name or password")
    if authority is not None and not _SERVER.match(authority[1]):
        raise _invalid("url_host", "must name its host in ASCII letters and digits, without brackets")
    if scheme in _SPECIAL and (authority is None or not authority[1].partition(":")[0]):
        raise _invalid("url_host", f"must start with {scheme}:// and name a host")
    if rest in ("//", "#", "?"):
        raise _invalid("url_malformed", f"has nothing after {scheme}:")
    before, mark, fragment = rest.partition("#")
    return f"{_escaped(before)}{mark}{_escaped(fragment)}"


def _escaped(text: str) -> str:
    """Return *text* with what RFC 3986 allows nowhere percent-encoded, as UTF-8; escapes stay."""
    return _OUTSIDE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def _invalid(code: str, message: str) -> InvalidInput:
    return InvalidInput([FieldError("long_url", code, message)])
