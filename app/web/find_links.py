"""`GET /api/v1/links`: filters, search, orders and pages of links."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec

from app.domain import rules, search, target
from app.ports import LinkCondition
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.find import MAX_FILTER_TAGS, SORTS, Filters, Listings
from app.service.keys import Scope
from app.web import cursors, listing_schemas, patterns
from app.web.endpoint import Operation
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import (
    FLAG,
    TIME,
    Kind,
    QueryParameter,
    QueryReader,
    WrongValue,
    choice,
    listed,
    member,
    number,
    one,
    printable,
    several,
)
from app.web.response import Response, json_response
from app.web.robyn_app import Router

DEFAULT_PAGE, MAX_PAGE = 50, 200
ME = "me"
_OWNER = re.compile(patterns.OWNER)


def owner_of(text: str) -> str:
    """Return the owner *text* as filters take it, or `ME`; raises WrongValue."""
    if _OWNER.fullmatch(text) is None:
        raise WrongValue("owner_invalid", "must be the id of a key, me or none")
    return "" if text == "none" else text


ONE_TAG = printable(1, rules.MAX_TAG_LENGTH, "tag_invalid", pattern=patterns.PRINTABLE, examples=["spring"])
# The rules of these are those of the domain, which `Filters` applies.
_SEARCH = Kind(
    {
        "type": "string",
        "maxLength": search.MAX_SEARCH_LENGTH,
        "pattern": patterns.SEARCH,
        "examples": ["spring sale"],
    },
    str,
)
HOST_OF_DOMAIN = Kind(
    {
        "type": "string",
        "maxLength": target.MAX_HOST_LENGTH,
        "pattern": patterns.HOST,
        "examples": ["www.example.com"],
    },
    str,
)
_LONG_URL = Kind(
    {
        "type": "string",
        "maxLength": target.MAX_LENGTH,
        "pattern": patterns.TARGET,
        "examples": ["https://example.com/a?b=c"],
    },
    str,
)
_CURSOR = Kind({"type": "string", "pattern": patterns.ANY_CURSOR}, str)

LIMIT = one("limit", number(1, MAX_PAGE, "limit_invalid", DEFAULT_PAGE), "How many a page has at most.")
CURSOR = one(
    "cursor",
    _CURSOR,
    "`next_cursor` of the page before. It belongs to the filters and the order of that page; `limit`,"
    " `fields` and `count` may change.",
)
SEARCH = one(
    "search",
    _SEARCH,
    f"Up to {search.MAX_TERMS} terms, parted by spaces, of {search.MIN_TERM_LENGTH} characters or more. A"
    " link has all of them, each anywhere in its slug, title, target or one of its tags; case, ß and"
    " ss, and how a character is composed play no part. Targets are searched"
    " as they are shown: `xn--…`, `%C3%A4`.",
)
TAG = several("tag", ONE_TAG, MAX_FILTER_TAGS, "Links with this tag. Sent several times: with any of them.")
TAGS_ALL = several("tags_all", ONE_TAG, MAX_FILTER_TAGS, "Links that have each of these tags.")
TAGS_NONE = several("tags_none", ONE_TAG, MAX_FILTER_TAGS, "Links that have none of these tags.")
HOST = one("host", HOST_OF_DOMAIN, "Links whose target is on this host, whatever the port; no subdomains.")
DOMAIN = one("domain", HOST_OF_DOMAIN, "Links that are visited at this host; of every domain without it.")
LONG_URL = one("long_url", _LONG_URL, "Links with this target, compared in canonical form.")
OWNER = one(
    "owner",
    Kind({"type": "string", "pattern": patterns.OWNER, "examples": ["me", "k3Jx81Ab"]}, owner_of),
    "Links that this API key owns, by its id; `me`: the key of the request; `none`: no key.",
)
STATE = several(
    "state",
    member(LinkCondition, "state_invalid"),
    len(LinkCondition),
    "Links in this state. Sent several times: in any of them. `disabled`, whatever the times are; `expired`;"
    " `pending`, before `valid_from`; else `live`. Spent `max_visits` change no state.",
)
_TIMES = {
    name: one(name, TIME, f"Links that {verb} {when} this time{note}.")
    for field, verb, note in (
        ("created", "were created", ""),
        ("updated", "were changed last", ""),
        ("expires", "expire", "; not those without an end"),
    )
    for name, when in ((f"{field}_since", "at or after"), (f"{field}_until", "before"))
}
SORT = one(
    "sort",
    choice(list(SORTS), "sort_invalid"),
    "The order; a minus turns it around. Default: in the order in which links were stored, newest first."
    " Titles and slugs are in the order of code points, slugs of the default domain first. Clicks are those"
    " added up so far: a link that is visited between two pages may be on both, or on neither.",
)
FIELDS = listed(
    "fields",
    choice(listing_schemas.FIELDS, "field_unknown"),
    "The fields of each link, parted by commas. Default: all.",
)
COUNT = one("count", FLAG, "Also count the links on all pages; `count` is null if that takes too long.")
FILTERS: tuple[QueryParameter[Any], ...] = (
    *(SEARCH, TAG, TAGS_ALL, TAGS_NONE, HOST, LONG_URL, OWNER, STATE),
    *_TIMES.values(),
)


def register_listing(api: Router, middleware: ApiMiddleware, listings: Listings, domains: Domains) -> None:
    """Declare the listing of links on *api*, the router of `/api/v1`."""

    @api.get("/links")
    @middleware.endpoint(
        Operation(
            summary="List links: all, or those that pass filters",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, listing_schemas.LinkPage),
            problems=(422,),
            parameters=(LIMIT, CURSOR, DOMAIN, *FILTERS, SORT, FIELDS, COUNT),
        )
    )
    async def list_links(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        limit, cursor = reader.one(LIMIT), reader.one(CURSOR)
        names, counted = reader.listed(FIELDS), reader.one(COUNT)
        asked = reader.one(DOMAIN)
        filters = filters_of(reader, call.principal.key_id)
        domain = await domains.named(asked) if asked is not None else None
        query = replace(filters, domain=None if domain is None else domain.domain_id).query()
        listing = await listings.page(
            query,
            after=cursors.position_in(query, cursor),
            limit=limit or DEFAULT_PAGE,
            counted=bool(counted),
        )
        await domains.know(listing.links)
        page = listing_schemas.LinkPage(
            [listing_schemas.listed_link(link, domains.index, names) for link in listing.links],
            cursors.of_links(query, listing.next_after),
            listing.count if counted else msgspec.UNSET,
        )
        return json_response(200, page)


def filters_of(reader: QueryReader, key_id: str) -> Filters:
    """Return the filters of a request of *key_id*; raises InvalidInput with all that no kind takes."""
    owner = reader.one(OWNER)
    filters = Filters(
        search=reader.one(SEARCH),
        tag=reader.several(TAG),
        tags_all=reader.several(TAGS_ALL),
        tags_none=reader.several(TAGS_NONE),
        host=reader.one(HOST),
        long_url=reader.one(LONG_URL),
        owner=key_id if owner == ME else owner,
        state=reader.several(STATE),
        sort=reader.one(SORT),
        **{name: reader.one(parameter) for name, parameter in _TIMES.items()},  # type: ignore[arg-type]
    )
    reader.check()
    return filters
