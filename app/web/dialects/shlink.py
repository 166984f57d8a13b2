"""The REST API of Shlink, version 3: short URLs, their tags, domains, and how often they were visited."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_never
from urllib.parse import unquote

from app.concurrency.actors import reach
from app.domain import rules
from app.domain.domains import DomainIndex
from app.domain.errors import FieldError
from app.domain.link import Link, Slug
from app.domain.reach import EVERYTHING
from app.ports import ExternalIdTaken, LinkCondition, LinkQuery, Policy, RequestMismatch, VersionMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.domains import Domains
from app.service.find import MAX_FILTER_TAGS, Filters, Listings
from app.service.keys import Scope
from app.service.links import Created, IsAlias, Links, Removed, SlugTaken
from app.web import errors, patterns
from app.web.dialects import shlink_creation
from app.web.dialects import shlink_shapes as shapes
from app.web.dialects.lookup import idempotent_request, shown, slug_taken, window
from app.web.dialects.problems import json_body
from app.web.dialects.shlink_problems import DIALECT, invalid_data, not_available, tag_conflict, tag_not_found
from app.web.endpoint import Operation
from app.web.links_api import may_read
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import (
    FLAG,
    TIME,
    Kind,
    QueryReader,
    WrongValue,
    choice,
    number,
    one,
    printable,
    several,
)
from app.web.request import Request
from app.web.response import Response, empty_response, json_response
from app.web.robyn_app import Router, new_router, public
from app.web.services import Services

PREFIX = "/rest/v3"
# The release whose API this is: clients ask for it to know what they may use.
VERSION = "4.0.0"
_DEFAULT_PAGE, _MAX_PAGE, _TAGS_AT_ONCE = 10, 1000, 1000
_SORTS = {
    "shortCode": "slug",
    "dateCreated": "created",
    "title": "title",
    "visits": "clicks",
    "nonBotVisits": "clicks",
}
_ORDERS = [f"{name}-{way}" for name in _SORTS for way in ("ASC", "DESC")]


def _moment(text: str) -> datetime:
    try:
        time = TIME.read(text)
    except WrongValue:
        # A plus that was not encoded.
        time = TIME.read(text.replace(" ", "+"))
    # As Shlink takes it: a time without a zone is one of the server, whose zone is UTC here.
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _after(time: datetime) -> datetime:
    """Return the moment after *time*, or *time* if there is none; rules of the domain refuse such years."""
    try:
        return time + timedelta.resolution
    except OverflowError:
        return time


_TAG = printable(1, rules.MAX_TAG_LENGTH, "tag_invalid", pattern=patterns.PRINTABLE)
_MOMENT = Kind({"type": "string"}, _moment)
_MODE = choice(("any", "all"), "mode_invalid")
_PAGE = one("page", number(1, 10**9 - 1, "page_invalid", 1))
_SIZE = one("itemsPerPage", number(1, _MAX_PAGE, "page_size_invalid", _DEFAULT_PAGE))
_TERM = one("searchTerm", Kind({"type": "string"}, str))
_TAGS = several("tags[]", _TAG, MAX_FILTER_TAGS)
_TAGS_MODE = one("tagsMode", _MODE)
_EXCLUDED = several("excludeTags[]", _TAG, MAX_FILTER_TAGS)
_EXCLUDED_MODE = one("excludeTagsMode", _MODE)
_ORDER = one("orderBy", choice(_ORDERS, "order_invalid"))
_START, _END = one("startDate", _MOMENT), one("endDate", _MOMENT)
_SPENT, _PAST = one("excludeMaxVisitsReached", FLAG), one("excludePastValidUntil", FLAG)
_DOMAIN = one("domain", Kind({"type": "string"}, str))
_KEY_NAME = one("apiKeyName", Kind({"type": "string"}, str))


def _operation(scope: Scope | None, *, work: WorkKind = WorkKind.LIST, **more: Any) -> Operation:
    more = {"deadline_s": ADMIN_S, "problems": (404,), **more}
    return Operation(summary="", scope=scope, work=work, success=(200, None), **more)


_READ = _operation(Scope.LINKS_READ)
_WRITE = _operation(
    Scope.LINKS_WRITE,
    work=WorkKind.WRITE,
    deadline_s=WRITE_S,
    empty=(204,),
    problems=(404, 411, 413, 415, 422),
)
_CREATE = _operation(
    Scope.LINKS_WRITE,
    work=WorkKind.WRITE,
    deadline_s=WRITE_S,
    limit=Policy.CREATE,
    problems=(404, 411, 413, 415, 422),
)
_RETAG = _operation(Scope.LINKS_WRITE, work=WorkKind.WRITE, empty=(204,), problems=(404, 409, 411, 413, 415))


def register(app: Any, middleware: ApiMiddleware, services: Services) -> None:
    """Declare the endpoints of Shlink on *app*, the application."""
    api = new_router(PREFIX)
    _register_health(app, api)
    _ShortUrls(services).register(api, middleware)
    _register_visits(api, middleware, services.links, services.listings, services.domains)
    _Tags(services).register(api, middleware)
    _register_domains(api, middleware, services.domains)
    _register_missing(api, middleware)
    app.include_router(api)


def _register_health(app: Router, api: Router) -> None:
    async def health(_request: Request) -> Response:
        links = {"about": "https://shlink.io", "project": "https://github.com/shlinkio/shlink"}
        return json_response(200, {"status": "pass", "version": VERSION, "links": links})

    app.get("/rest/health")(public(health))
    api.get("/health")(public(health))


class _ShortUrls:
    """The operations on short URLs."""

    def __init__(self, services: Services) -> None:
        self._links, self._listings = services.links, services.listings
        self._domains = services.domains

    def register(self, api: Router, middleware: ApiMiddleware) -> None:
        """Declare them on *api*."""
        reading = middleware.endpoint(_READ, dialect=DIALECT)
        writing = middleware.endpoint(_WRITE, dialect=DIALECT)
        api.get("/short-urls")(reading(self.list_short_urls))
        api.post("/short-urls")(middleware.endpoint(_CREATE, dialect=DIALECT)(self.create_short_url))
        api.get("/short-urls/:slug")(reading(self.get_short_url))
        api.patch("/short-urls/:slug")(writing(self.edit_short_url))
        api.delete("/short-urls/:slug")(writing(self.delete_short_url))
        api.get("/short-urls/:slug/redirect-rules")(reading(self.get_redirect_rules))

    async def list_short_urls(self, call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        number, size = reader.one(_PAGE) or 1, reader.one(_SIZE) or _DEFAULT_PAGE
        query = await _query(reader, self._domains)
        total = (await self._listings.page(query, after=None, limit=1, counted=True)).count
        if total is None:
            return errors.unavailable(TimeoutError())
        first = (number - 1) * size
        found = await window(query, self._listings, first=first, limit=size) if first < total else ()
        await self._domains.know(found)
        listed = [shapes.short_url(link, self._domains.index) for link in found]
        return json_response(200, {"shortUrls": shapes.page(listed, number=number, size=size, total=total)})

    async def create_short_url(self, call: Call[None]) -> Response:
        body = json_body(call.request, shapes.CreateShortUrl)
        if isinstance(body, Response):
            return body
        domain = await self._domains.named(body.domain or None)
        if body.find_if_exists:
            if not may_read(call.principal):
                return errors.forbidden(Scope.LINKS_READ)
            found = await shlink_creation.equal(body, domain, listings=self._listings)
            if found is not None:
                return json_response(200, shapes.short_url(found, self._domains.index))
        request = idempotent_request(call.request, call.principal.key_id)
        outcome = await shlink_creation.create(body, domain, call.principal, request, links=self._links)
        match outcome:
            case Created():
                link = shown(outcome, body.fields(), call.principal)
                return json_response(200, shapes.short_url(link, self._domains.index))
            case SlugTaken(link):
                return slug_taken(body.custom_slug or "", link, call.principal)
            case RequestMismatch():
                return errors.idempotency_key_reused()
            case ExternalIdTaken():
                raise AssertionError("no external id was sent")
            case _:
                assert_never(outcome)

    async def get_short_url(self, call: Call[None]) -> Response:
        key = await _key(call.request, self._domains)
        return _shown(await self._links.get(key) if key else None, self._domains.index)

    async def edit_short_url(self, call: Call[None]) -> Response:
        body = json_body(call.request, shapes.EditShortUrl)
        if isinstance(body, Response):
            return body
        patch, key = body.patch(), await _key(call.request, self._domains)
        outcome = await self._links.change(key, patch) if key else None
        if isinstance(outcome, Link) and not may_read(call.principal):
            return empty_response(204)
        return _shown(outcome, self._domains.index)

    async def delete_short_url(self, call: Call[None]) -> Response:
        key = await _key(call.request, self._domains)
        outcome = await self._links.remove(key) if key else None
        return empty_response(204) if isinstance(outcome, Link) else _shown(outcome, self._domains.index)

    async def get_redirect_rules(self, call: Call[None]) -> Response:
        key = await _key(call.request, self._domains)
        link = await self._links.get(key) if key else None
        if not isinstance(link, Link):
            return errors.not_found()
        return json_response(200, {"defaultLongUrl": link.fields.long_url, "redirectRules": []})


def _register_visits(
    api: Router, middleware: ApiMiddleware, links: Links, listings: Listings, domains: Domains
) -> None:
    """Visits are counted, and not kept one by one: lists of them are what is true of none, or are refused."""

    @api.get("/visits")
    @middleware.endpoint(_READ, dialect=DIALECT)
    async def get_visits_overview(_call: Call[None]) -> Response:
        if reach() != EVERYTHING:
            return errors.restricted()
        totals = await listings.totals()
        if totals is None:
            return errors.unavailable(TimeoutError())
        visits = {
            "nonOrphanVisits": shapes.summary(totals.clicks),
            # Visits of what is not there are no visits of a link, so none is counted.
            "orphanVisits": shapes.summary(0),
        }
        return json_response(200, {"visits": visits})

    @api.get("/short-urls/:slug/visits")
    @middleware.endpoint(_READ, dialect=DIALECT)
    async def list_visits(call: Call[None]) -> Response:
        key = await _key(call.request, domains)
        link = await links.get(key) if key else None
        if not isinstance(link, Link):
            return errors.not_found()
        if link.visits:
            return not_available(f"The {link.visits} visits were counted, and not kept one by one")
        return json_response(200, {"visits": shapes.page([], number=1, size=_MAX_PAGE, total=0)})

    @api.get("/visits/orphan")
    @middleware.endpoint(_READ, dialect=DIALECT)
    async def list_orphan_visits(_call: Call[None]) -> Response:
        return json_response(200, {"visits": shapes.page([], number=1, size=_MAX_PAGE, total=0)})


class _Tags:
    """The operations on tags."""

    def __init__(self, services: Services) -> None:
        self._listings = services.listings

    def register(self, api: Router, middleware: ApiMiddleware) -> None:
        """Declare them on *api*."""
        retagging = middleware.endpoint(_RETAG, dialect=DIALECT)
        api.get("/tags")(middleware.endpoint(_READ, dialect=DIALECT)(self.list_tags))
        api.put("/tags")(retagging(self.rename_tag))
        api.delete("/tags")(retagging(self.delete_tags))

    async def list_tags(self, call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        number, size, term = reader.one(_PAGE) or 1, reader.one(_SIZE), reader.one(_TERM)
        reader.check()
        found: list[str] = []
        while batch := await self._listings.tags(after=found[-1] if found else None, limit=_TAGS_AT_ONCE):
            found += [one.tag for one in batch]
        if term:
            found = [tag for tag in found if term.casefold() in tag.casefold()]
        # As in Shlink, all of them unless a size is named.
        size = size or max(len(found), 1)
        listed = found[(number - 1) * size : number * size]
        return json_response(200, {"tags": shapes.page(listed, number=number, size=size, total=len(found))})

    async def _is_there(self, tag: str) -> bool:
        return bool((await self._listings.page(LinkQuery(tags_all=(tag,)), after=None, limit=1)).links)

    async def rename_tag(self, call: Call[None]) -> Response:
        body = json_body(call.request, shapes.RenameTag)
        if isinstance(body, Response):
            return body
        if not may_read(call.principal):
            return errors.forbidden(Scope.LINKS_READ)
        return await self._renamed(body.old_name, body.new_name)

    async def _renamed(self, old: str, new: str) -> Response:
        problems = {"oldName": rules.tag_problem(old), "newName": rules.tag_problem(new)}
        faults = [(name, problem) for name, problem in problems.items() if problem is not None]
        if faults:
            return invalid_data(faults)
        if not await self._is_there(old):
            return tag_not_found(old)
        if old == new:
            return empty_response(204)
        if await self._is_there(new):
            return tag_conflict(old, new)
        done = await self._listings.retag(old, new)
        return empty_response(204) if done.is_done else _unfinished()

    async def delete_tags(self, call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        tags = reader.several(_TAGS)
        reader.check()
        if not tags:
            return invalid_data([("tags", "must name the tags to delete")])
        for tag in tags:
            if not (await self._listings.retag(tag, None)).is_done:
                return _unfinished()
        return empty_response(204)


def _register_domains(api: Router, middleware: ApiMiddleware, domains: Domains) -> None:
    @api.get("/domains")
    @middleware.endpoint(_READ, dialect=DIALECT)
    async def list_domains(_call: Call[None]) -> Response:
        found = [one for one in await domains.all() if reach().has_domain(one.domain_id)]
        listed = [shapes.domain(one, is_default=one.is_default) for one in found]
        none = dict.fromkeys(("baseUrlRedirect", "regular404Redirect", "invalidShortUrlRedirect"))
        return json_response(200, {"domains": {"data": listed, "defaultRedirects": none}})


def _register_missing(api: Router, middleware: ApiMiddleware) -> None:
    """Declare what this service has not: the answer is that of a Shlink without it."""

    @middleware.endpoint(_operation(None), dialect=DIALECT)
    async def missing(_call: Call[None]) -> Response:
        return not_available("This is not available here")

    for path in ("/mercure-info", "/visits/non-orphan", "/tags/stats", "/tags/:tag/visits"):
        api.get(path)(missing)
    api.get("/domains/:host/visits")(missing)
    api.patch("/domains/redirects")(missing)
    api.post("/short-urls/:slug/redirect-rules")(missing)
    api.delete("/short-urls/:slug/visits")(missing)
    api.delete("/visits/orphan")(missing)


async def _query(reader: QueryReader, domains: Domains) -> LinkQuery:
    """Return which short URLs are listed; raises InvalidInput."""
    tags, excluded, order = reader.several(_TAGS), reader.several(_EXCLUDED), reader.one(_ORDER)
    name, _, way = (order or "").partition("-")
    end, host = reader.one(_END), reader.one(_DOMAIN)
    is_all = reader.one(_TAGS_MODE) == "all"
    for parameter, value in (
        (_EXCLUDED_MODE, reader.one(_EXCLUDED_MODE) == "all" and len(excluded) > 1),
        (_SPENT, reader.one(_SPENT)),
        (_KEY_NAME, reader.one(_KEY_NAME)),
    ):
        if value:
            reader.errors.append(FieldError(parameter.name, "not_available", "is not available"))
    past = (LinkCondition.LIVE, LinkCondition.PENDING, LinkCondition.DISABLED)
    filters = Filters(
        search=reader.one(_TERM) or None,
        tag=() if is_all else tags,
        tags_all=tags if is_all else (),
        tags_none=excluded,
        state=past if reader.one(_PAST) else (),
        created_since=reader.one(_START),
        # Shlink takes this moment in.
        created_until=None if end is None else _after(end),
        sort=f"{'-' if way == 'DESC' else ''}{_SORTS[name]}" if order else None,
        domain=None if not host else (await domains.named(None if host == "DEFAULT" else host)).domain_id,
    )
    reader.check()
    return filters.query()


async def _key(request: Request, domains: Domains) -> Slug | None:
    """Return the key of the link in the path; None if there can be none. Raises InvalidInput."""
    text = unquote(request.path_params["slug"])
    host = request.query.get("domain")
    found = await domains.find(host or None, "domain")
    return None if found is None else found.known_key(text)


def _shown(
    outcome: Link | VersionMismatch | ExternalIdTaken | Removed | IsAlias | None, domains: DomainIndex
) -> Response:
    match outcome:
        case Link():
            return json_response(200, shapes.short_url(outcome, domains))
        case IsAlias():
            return errors.is_alias(None)
        case Removed() | None:
            return errors.not_found()
        case VersionMismatch() | ExternalIdTaken():
            raise AssertionError("neither a version nor an external id was sent")
        case _:
            assert_never(outcome)


def _unfinished() -> Response:
    """Return that links were changed until time was over: the request goes on when it is repeated."""
    return errors.unavailable(TimeoutError(), may_have_written=True)
