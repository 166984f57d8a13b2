"""Reads what a visit looks like; the front does the same in `seen.rs`, and tests compare both."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from app.domain.link import Slug
from app.domain.visits import Look, Outcome
from app.web.intent import is_ahead
from app.web.response import Response
from app.web.scope import RsgiScope

_MAX_AGENT, _MAX_HOST, _MAX_LANGUAGE, _MAX_CAMPAIGN = 300, 253, 35, 600
_OUTCOMES = {404: Outcome.MISSED, 410: Outcome.GONE}
_CAMPAIGN = ("utm_source=", "utm_medium=", "utm_campaign=")


def look_of(slug: str, client: str, headers: Any, target: str = "", query: str = "") -> Look:
    """
    Return the look of a visit of *slug*.

    Args:
        client: its address.
        headers: those of granian's scope.
        target: the URL of the link.
        query: of the visit.
    """
    get = headers.get
    language = (get("accept-language") or "").partition(",")[0].partition(";")[0]
    return Look(
        slug=Slug(slug),
        referrer=host_of(get("referer") or "")[:_MAX_HOST],
        language=language[:_MAX_LANGUAGE],
        client=_counted(client) if ":" in client else client,
        user_agent=(get("user-agent") or "")[:_MAX_AGENT],
        objects=get("dnt") == "1" or get("sec-gpc") == "1",
        is_ahead=is_ahead(headers),
        campaign=_campaign(target, query) if "utm_" in target or "utm_" in query else "",
    )


def look_of_answer(slug: str, client: str, scope: RsgiScope, response: Response) -> Look | None:
    """Return the look of a GET of *slug* by *client* that ends with *response*; None: it is not counted."""
    headers = scope.headers
    if response.is_visit:
        return look_of(slug, client, headers, response.headers[0][1], scope.query_string)
    outcome = _OUTCOMES.get(response.stands_for or response.status)
    if outcome is None:
        return None
    get = headers.get
    return Look(
        slug=Slug(slug),
        user_agent=(get("user-agent") or "")[:_MAX_AGENT],
        objects=get("dnt") == "1" or get("sec-gpc") == "1",
        outcome=outcome,
    )


def _campaign(target: str, query: str) -> str:
    """Return the parameters that name a campaign; one that does not fit is left out."""
    kept, size = [], 0
    for text in (target.partition("#")[0].partition("?")[2], query):
        for one in text.split("&"):
            if one.startswith(_CAMPAIGN) and one.isascii() and size + len(one) < _MAX_CAMPAIGN:
                kept.append(one)
                size += len(one) + (len(kept) > 1)
    return "&".join(kept)


@lru_cache(maxsize=1024)
def _counted(address: str) -> str:
    """Return an IPv6 *address* as limits count it: by its network of 64 bits."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ip_network((found.packed, 64), strict=False))
    return str(found)


def host_of(url: str) -> str:
    """Return the host of *url*, without user information and port; nothing, if it has none."""
    _, separator, rest = url.partition("://")
    if not separator:
        return ""
    authority = rest
    for end in "/?#\\":
        authority = authority.partition(end)[0]
    host = authority.rpartition("@")[2]
    if host.startswith("["):
        inside, bracket, _ = host.partition("]")
        return f"{inside}{bracket}"
    return host.partition(":")[0]
