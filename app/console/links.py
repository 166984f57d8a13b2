"""The list of links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from app.console.gate import Gate
from app.console.rendering import Pages, Viewer
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import LinkFields
from app.domain.link_key import name_of
from app.ports import LinkCondition
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.find import SORTS, Filters, Listing
from app.service.keys import Principal, Scope
from app.web import cursors
from app.web.middleware import Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

_PER_PAGE = 25
RETRY = [("retry-after", "1")]
FILTERS = ("search", "tag", "state", "domain", "sort")


@dataclass(frozen=True, slots=True)
class Row:
    """A link of a list."""

    slug: str
    host: str
    short_url: str
    fields: LinkFields
    version: int
    visits: int
    condition: LinkCondition


def condition_of(fields: LinkFields, now: datetime) -> LinkCondition:
    """Return what keeps a link with *fields* from redirecting at *now*."""
    if not fields.enabled:
        return LinkCondition.DISABLED
    if fields.expires_at is not None and fields.expires_at <= now:
        return LinkCondition.EXPIRED
    if fields.valid_from is not None and fields.valid_from > now:
        return LinkCondition.PENDING
    return LinkCondition.LIVE


def register(
    app: Router,
    gate: Gate,
    pages: Pages,
    services: Services,
    *,
    clock: Callable[[], datetime],
) -> None:
    """Declare the page on *app*."""
    links = _Links(pages, services, clock)
    app.get("/console/links")(gate.page(Scope.LINKS_READ, deadline_s=ADMIN_S)(links.show))


class _Links:
    def __init__(self, pages: Pages, services: Services, clock: Callable[[], datetime]) -> None:
        self._pages = pages
        self._listings = services.listings
        self._domains = services.domains
        self._clock = clock

    async def show(self, call: Call[Any], viewer: Viewer) -> Response:
        """Return one page of the links that pass the filters in the address."""
        asked = {name: call.request.query.get(name, "").strip() for name in FILTERS}
        cursor = call.request.query.get("cursor") or None
        problems: Sequence[FieldError] = ()
        listing, next_cursor = Listing((), None, None), None
        try:
            query = (await _filters(asked, self._domains)).query()
            after = cursors.position_in(query, cursor)
            listing = await self._listings.page(query, after=after, limit=_PER_PAGE)
            next_cursor = cursors.of_links(query, listing.next_after)
        except InvalidInput as error:
            problems = error.errors
        await self._domains.know(listing.links)
        return self._pages.page(
            "links.html",
            viewer,
            status=422 if problems else 200,
            rows=self._rows(listing),
            asked=asked,
            is_filtered=any(asked[name] for name in FILTERS if name != "sort"),
            is_first=cursor is None,
            next_cursor=next_cursor,
            problems=problems,
            hosts=hosts(self._domains, call.principal),
            states=[one.value for one in LinkCondition],
            sorts=list(SORTS),
            back=urlencode({name: value for name, value in asked.items() if value}),
        )

    def _rows(self, listing: Listing) -> Sequence[Row]:
        now, index = self._clock(), self._domains.index
        return [
            Row(
                name_of(link.slug),
                index.of(link.slug).host,
                index.short_url(link.slug),
                link.fields,
                link.version,
                link.visits,
                condition_of(link.fields, now),
            )
            for link in listing.links
        ]


def by_field(error: InvalidInput) -> dict[str, str]:
    """Return the messages of *error* by the names of fields of a form."""
    found: dict[str, list[str]] = {}
    for one in error.errors:
        # An item of a list is `tags[0]`.
        found.setdefault(one.field.partition("[")[0], []).append(one.message)
    return {name: "; ".join(messages) for name, messages in found.items()}


async def _filters(asked: dict[str, str], domains: Domains) -> Filters:
    """Return the filters that were *asked* for; raises InvalidInput."""
    states, sort = {one.value: one for one in LinkCondition}, asked["sort"] or None
    errors = []
    if asked["state"] and asked["state"] not in states:
        errors.append(FieldError("state", "state_invalid", f"must be one of {', '.join(states)}"))
    if sort is not None and sort not in SORTS:
        errors.append(FieldError("sort", "sort_invalid", f"must be one of {', '.join(SORTS)}"))
    if errors:
        raise InvalidInput(errors)
    domain = await domains.named(asked["domain"]) if asked["domain"] else None
    return Filters(
        search=asked["search"] or None,
        tag=(asked["tag"],) if asked["tag"] else (),
        state=(states[asked["state"]],) if asked["state"] else (),
        domain=None if domain is None else domain.domain_id,
        sort=sort,
    )


def hosts(domains: Domains, principal: Principal) -> list[str]:
    """Return the hosts that *principal* may make links for, the default one first."""
    return [one.host for one in domains.index if principal.reach.has_domain(one.domain_id)]
