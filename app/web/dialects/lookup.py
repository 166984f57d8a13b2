"""Finds links as other programs name them: by an address, by their place in a listing, by their target."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote

from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, LinkFields, Slug
from app.ports import IdempotentRequest, LinkCondition, LinkQuery
from app.service.domains import Domains
from app.service.find import Listings
from app.service.keys import Principal
from app.service.links import Created
from app.web import errors
from app.web.links_api import idempotency_key
from app.web.request import Request
from app.web.response import Response

# Programs that count pages read all before the one they want. Cursors of this service's own API do not.
MAX_DEPTH = 10_000
_SLICE = 1000
# Of links with one target: as many are looked at for one that another visitor may be sent to.
_ALIKE = 100


async def key_at(address: str, domains: Domains) -> Slug | None:
    """
    Return the key of the link at *address*: a short URL, with or without its scheme, or a slug alone.

    None if no link can be there.
    """
    text = address.partition("://")[2] if address.startswith(("http://", "https://")) else address
    host, slash, _ = text.partition("/")
    if not slash:
        return domains.index.default.known_key(unquote(text))
    try:
        domain = await domains.find(host.partition(":")[0])
    except InvalidInput:
        return None
    if domain is None:
        return None
    # What stands before the slugs of the domain: its host, and perhaps a port and a path.
    prefix = domains.index.short_url(domain.key("")).partition("://")[2]
    given = f"{host.lower()}/{text[len(host) + 1 :]}"
    slug = given.removeprefix(prefix)
    return domain.known_key(unquote(slug)) if slug != given else None


def shown(made: Created, sent: LinkFields, principal: Principal) -> Link:
    """
    Return *made* as *principal* may see it.

    Other keys may have changed it since it was *sent* first, and may have it by now.
    """
    if made.replayed and not principal.may_see(made.link):
        return replace(made.link, fields=sent, visits=0)
    return made.link


def slug_taken(name: str, link: Link, principal: Principal) -> Response:
    """409: *link* has the slug; whether it was removed is for a key that may see it."""
    is_removed = link.removed_at is not None and link.alias_of is None
    return errors.slug_taken(name, None, removed=is_removed if principal.may_see(link) else None)


async def reusable(query: LinkQuery, listings: Listings) -> Sequence[Link]:
    """Return the links of *query*, the oldest first, that redirect without an end of time or visits."""
    live = replace(query, conditions=(LinkCondition.LIVE,), descending=False)
    page = await listings.page(live, after=None, limit=_ALIKE)
    return [one for one in page.links if one.fields.expires_at is None and one.fields.max_visits is None]


async def window(query: LinkQuery, listings: Listings, *, first: int, limit: int) -> Sequence[Link]:
    """
    Return up to *limit* links of *query* from place *first* on, which counts from 0.

    Raises:
        InvalidInput: that is deeper than `MAX_DEPTH`; the field is `page`.
    """
    if first + limit > MAX_DEPTH:
        message = f"reaches beyond {MAX_DEPTH} links: /api/v1/links lists more"
        raise InvalidInput([FieldError("page", "too_deep", message)])
    found: list[Link] = []
    after = None
    while len(found) < first + limit:
        wanted = min(_SLICE, first + limit - len(found))
        page = await listings.page(query, after=after, limit=wanted)
        found += page.links
        after = page.next_after
        if after is None:
            break
    return found[first : first + limit]


def idempotent_request(request: Request, key_id: str) -> IdempotentRequest | None:
    """Return the client's name for *request* with what it asks for, which may stand in the query."""
    name = idempotency_key(request)
    if name is None:
        return None
    asked = b"\0".join((request.query_string.encode("utf-8", "surrogatepass"), request.body))
    return IdempotentRequest(key_id, name, hashlib.sha256(asked).digest())
