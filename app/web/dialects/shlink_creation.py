"""Makes short URLs as Shlink does: with a length, or by finding one that is there already."""

from __future__ import annotations

import secrets
from dataclasses import replace

from app.domain import slug as slugs
from app.domain.domains import Domain
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, LinkFields
from app.domain.link_key import name_of
from app.domain.slug import MOVED, ORDINARY
from app.ports import ExternalIdTaken, IdempotentRequest, LinkCondition, RequestMismatch
from app.service.find import Filters, Listings
from app.service.keys import Principal, Scope
from app.service.links import Created, Links, SlugTaken
from app.web.dialects.shlink_shapes import CreateShortUrl

_SHORTEST = 4
_TRIES = 5
_ALIKE = 100


async def create(
    body: CreateShortUrl,
    domain: Domain,
    principal: Principal,
    request: IdempotentRequest | None,
    *,
    links: Links,
) -> Created | SlugTaken | ExternalIdTaken | RequestMismatch:
    """Store what *body* asks for; raises InvalidInput and Unavailable as `Links.create`."""
    fields = body.fields()
    lengths = MOVED if principal.may(Scope.ADMIN) else ORDINARY
    if body.short_code_length is None or body.custom_slug:
        slug = body.custom_slug or None
        return await links.create(fields, domain=domain, custom_slug=slug, lengths=lengths, request=request)
    if not _SHORTEST <= body.short_code_length <= ORDINARY.most:
        message = f"must be {_SHORTEST} to {ORDINARY.most}"
        raise InvalidInput([FieldError("shortCodeLength", "length_invalid", message)])
    outcome: Created | SlugTaken | ExternalIdTaken | RequestMismatch | None = None
    for _ in range(_TRIES):
        slug = slugs.generate(secrets.choice, body.short_code_length)
        if slug.casefold() not in slugs.RESERVED:
            outcome = await links.create(
                fields, domain=domain, custom_slug=slug, lengths=lengths, request=request
            )
            if not isinstance(outcome, SlugTaken):
                return outcome
    if outcome is None:
        message = "leaves too few short codes"
        raise InvalidInput([FieldError("shortCodeLength", "length_invalid", message)])
    return outcome


async def equal(body: CreateShortUrl, domain: Domain, *, listings: Listings) -> Link | None:
    """Return the oldest live link with all that *body* says of it, if there is one."""
    fields = body.fields()
    query = Filters(long_url=fields.long_url, tags_all=fields.tags, domain=domain.domain_id).query()
    live = replace(query, conditions=(LinkCondition.LIVE, LinkCondition.PENDING), descending=False)
    page = await listings.page(live, after=None, limit=_ALIKE)
    return next((one for one in page.links if _is_equal(one, body, fields)), None)


def _is_equal(link: Link, body: CreateShortUrl, wanted: LinkFields) -> bool:
    held = link.fields
    return (
        set(held.tags) == set(wanted.tags)
        and (held.valid_from, held.expires_at, held.max_visits)
        == (wanted.valid_from, wanted.expires_at, wanted.max_visits)
        and body.custom_slug in {None, "", name_of(link.slug)}
        and (body.forward_query is None or held.forward_query is body.forward_query)
    )
