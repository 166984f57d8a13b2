"""Answers about a link that is in the way: they hold it if the key may see it, and else say nothing of it."""

from __future__ import annotations

from app.domain.domains import DomainIndex
from app.domain.link import Link, Slug
from app.domain.link_key import name_of
from app.service.keys import Principal
from app.web import errors, schemas
from app.web.response import Response
from app.web.schemas import LinkDocument


def seen(link: Link, principal: Principal, domains: DomainIndex) -> LinkDocument | None:
    """Return *link* as the API shows it; None if *principal* may not see it."""
    return schemas.link_document(link, domains) if principal.may_see(link) else None


def slug_taken(
    link: Link, principal: Principal, domains: DomainIndex, *, slug: Slug | None = None
) -> Response:
    """409: *link* has *slug*, None: its own."""
    name = name_of(slug or link.slug)
    if not principal.may_see(link):
        return errors.slug_taken(name, None, removed=None)
    is_removed = link.removed_at is not None and link.alias_of is None
    is_shown = not is_removed and link.alias_of is None
    document = schemas.link_document(link, domains) if is_shown else None
    return errors.slug_taken(name, document, removed=is_removed)


def external_id_taken(link: Link, principal: Principal, domains: DomainIndex) -> Response:
    """409: *link* has the external id."""
    return errors.external_id_taken(link.fields.external_id, seen(link, principal, domains))


def version_mismatch(link: Link, principal: Principal, domains: DomainIndex) -> Response:
    """412: *link* is at a version that the request excludes."""
    return errors.version_mismatch(link.version, seen(link, principal, domains))
