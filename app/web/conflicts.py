"""Answers about a link that is in the way: they hold it if the key may see it, and else say nothing of it."""

from __future__ import annotations

from app.domain.domains import DomainIndex
from app.domain.link import Link
from app.domain.link_key import name_of
from app.service.keys import Principal
from app.web import errors, schemas
from app.web.response import Response
from app.web.schemas import LinkDocument


def seen(link: Link, principal: Principal, domains: DomainIndex) -> LinkDocument | None:
    """Return *link* as the API shows it; None if *principal* may not see it."""
    return schemas.link_document(link, domains) if principal.may_see(link) else None


def slug_taken(link: Link, principal: Principal, domains: DomainIndex) -> Response:
    """409: *link* has the slug."""
    if not principal.may_see(link):
        return errors.slug_taken(name_of(link.slug), None, removed=None)
    is_removed = link.removed_at is not None
    document = None if is_removed else schemas.link_document(link, domains)
    return errors.slug_taken(name_of(link.slug), document, removed=is_removed)


def external_id_taken(link: Link, principal: Principal, domains: DomainIndex) -> Response:
    """409: *link* has the external id."""
    return errors.external_id_taken(link.fields.external_id, seen(link, principal, domains))


def version_mismatch(link: Link, principal: Principal, domains: DomainIndex) -> Response:
    """412: *link* is at a version that the request excludes."""
    return errors.version_mismatch(link.version, seen(link, principal, domains))
