"""Short URLs, domains and pages as Shlink shows them, and what its clients send."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.domain.domains import Domain, DomainIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, LinkFields
from app.domain.link_key import name_of


class CreateShortUrl(msgspec.Struct, rename="camel"):
    """The body of a creation. What Shlink does not know either is ignored."""

    long_url: str
    custom_slug: str | None = None
    path_prefix: str | None = None
    short_code_length: int | None = None
    find_if_exists: bool = False
    domain: str | None = None
    valid_since: datetime | None = None
    valid_until: datetime | None = None
    max_visits: int | None = None
    tags: tuple[str, ...] = ()
    title: str | None = None
    crawlable: bool | None = None
    forward_query: bool | None = None
    device_long_urls: dict[str, Any] | None = None

    def fields(self) -> LinkFields:
        """Return the fields of the link; raises InvalidInput if this service cannot do what is asked."""
        _refuse(
            pathPrefix=self.path_prefix,
            deviceLongUrls=self.device_long_urls,
            crawlable=self.crawlable is False,
        )
        # As in Shlink, unless it would be refused: only URLs with an authority have a query to add to.
        forwards = "://" in self.long_url if self.forward_query is None else self.forward_query
        return LinkFields(
            long_url=self.long_url,
            title=self.title or "",
            tags=self.tags,
            valid_from=self.valid_since,
            expires_at=self.valid_until,
            max_visits=self.max_visits,
            forward_query=forwards,
        )


class EditShortUrl(msgspec.Struct, rename="camel"):
    """The body of a change: what is left out stays as it is."""

    long_url: str | msgspec.UnsetType = msgspec.UNSET
    valid_since: datetime | msgspec.UnsetType | None = msgspec.UNSET
    valid_until: datetime | msgspec.UnsetType | None = msgspec.UNSET
    max_visits: int | msgspec.UnsetType | None = msgspec.UNSET
    tags: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    title: str | msgspec.UnsetType | None = msgspec.UNSET
    crawlable: bool | msgspec.UnsetType = msgspec.UNSET
    forward_query: bool | msgspec.UnsetType = msgspec.UNSET
    device_long_urls: dict[str, Any] | None = None

    def patch(self) -> Mapping[str, Any]:
        """Return the fields of the link that change; raises InvalidInput as `CreateShortUrl.fields`."""
        _refuse(deviceLongUrls=self.device_long_urls, crawlable=self.crawlable is False)
        named = {
            "long_url": self.long_url,
            "valid_from": self.valid_since,
            "expires_at": self.valid_until,
            "max_visits": self.max_visits,
            "tags": self.tags,
            "title": "" if self.title is None else self.title,
            "forward_query": self.forward_query,
        }
        return {name: value for name, value in named.items() if value is not msgspec.UNSET}


class RenameTag(msgspec.Struct, rename="camel"):
    """The body of a renaming."""

    old_name: str
    new_name: str


def _refuse(**asked: object) -> None:
    """Refuse each field that asks for what this service cannot do; raises InvalidInput."""
    reasons = {"crawlable": "must be true: crawlers may follow every link"}
    faults = [
        FieldError(name, "not_available", reasons.get(name, "is not available"))
        for name, value in asked.items()
        if value
    ]
    if faults:
        raise InvalidInput(faults)


def short_url(link: Link, domains: DomainIndex) -> dict[str, Any]:
    """Return *link* as Shlink shows it."""
    fields, domain = link.fields, domains.of(link.slug)
    return {
        "shortCode": name_of(link.slug),
        "shortUrl": domains.short_url(link.slug),
        "longUrl": fields.long_url,
        "dateCreated": _time(link.created_at),
        "visitsSummary": summary(link.visits),
        "tags": fields.tags,
        "meta": {
            "validSince": _time(fields.valid_from),
            "validUntil": _time(fields.expires_at),
            "maxVisits": fields.max_visits,
        },
        "domain": None if domain.is_default else domain.host,
        "title": fields.title or None,
        "crawlable": True,
        "forwardQuery": fields.forward_query,
        "hasRedirectRules": False,
    }


def summary(visits: int) -> dict[str, int]:
    """Return how often something was visited. Bots are not told apart: none is counted as one."""
    return {"total": visits, "nonBots": visits, "bots": 0}


def page(items: Sequence[object], *, number: int, size: int, total: int) -> dict[str, Any]:
    """Return page *number*, from 1 on, of *total* items."""
    return {
        "data": items,
        "pagination": {
            "currentPage": number,
            "pagesCount": math.ceil(total / size),
            "itemsPerPage": size,
            "itemsInCurrentPage": len(items),
            "totalItems": total,
        },
    }


def domain(one: Domain, *, is_default: bool) -> dict[str, Any]:
    """Return a domain. Visitors of what is not there go to one page, whatever they have asked for."""
    pages = one.settings
    redirects = {
        "baseUrlRedirect": pages.root_url,
        "regular404Redirect": pages.not_found_url,
        "invalidShortUrlRedirect": pages.not_found_url,
    }
    return {"domain": one.host, "isDefault": is_default, "redirects": redirects}


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")
