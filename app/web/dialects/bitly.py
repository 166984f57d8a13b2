"""The API of Bitly, version 4: bitlinks, and how often they were clicked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never
from urllib.parse import unquote

import msgspec

from app.concurrency.actors import reach
from app.domain.domains import Domain, DomainIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, LinkFields, Slug
from app.domain.link_key import name_of
from app.domain.slug import MOVED, ORDINARY
from app.ports import ExternalIdTaken, Policy, RequestMismatch, VersionMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.batch_plans import Kept, NewItem, Stored
from app.service.bulk import BatchDone
from app.service.keys import Scope
from app.service.links import Created, IsAlias, Removed, SlugTaken
from app.service.stats import HourlyStats
from app.web import errors
from app.web.dialects.bitly_problems import DIALECT
from app.web.dialects.lookup import idempotent_request, shown, slug_taken
from app.web.dialects.problems import json_body
from app.web.endpoint import Operation
from app.web.links_api import may_read
from app.web.middleware import ApiMiddleware, Call
from app.web.request import Request
from app.web.response import Response, empty_response, json_response
from app.web.robyn_app import Router, new_router
from app.web.services import Services

PREFIX = "/v4"
# Its clients name it where they name no other: the default domain of this service stands for it.
BITLY_DOMAIN = "bit.ly"
# Links have no groups here: there is one, and every key is in it.
GROUP = "hopgate"
_TIME = "%Y-%m-%dT%H:%M:%S+0000"
_UNITS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
_MAX_HOURS = 31 * 24


class Shorten(msgspec.Struct):
    """The body of a shortening."""

    long_url: str
    domain: str | None = None
    group_guid: str | None = None


class CreateBitlink(Shorten):
    """The body of a creation. What Bitly does not know either is ignored."""

    title: str | None = None
    tags: tuple[str, ...] = ()
    deeplinks: tuple[Any, ...] = ()
    expiration_at: str | None = None
    keyword: str | None = None


class PatchBitlink(msgspec.Struct):
    """The body of a change: what is left out stays as it is."""

    title: str | msgspec.UnsetType = msgspec.UNSET
    tags: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    long_url: str | msgspec.UnsetType = msgspec.UNSET
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    deeplinks: tuple[Any, ...] = ()

    def patch(self) -> Mapping[str, Any]:
        """Return the fields of the link that change."""
        enabled = self.archived if self.archived is msgspec.UNSET else not self.archived
        named = {"title": self.title, "tags": self.tags, "long_url": self.long_url, "enabled": enabled}
        return {name: value for name, value in named.items() if value is not msgspec.UNSET}


class Expand(msgspec.Struct):
    """The body of an expansion."""

    bitlink_id: str


def _operation(scope: Scope | None, *, work: WorkKind = WorkKind.LIST, **more: Any) -> Operation:
    more = {"deadline_s": WRITE_S, "problems": (404, 409, 411, 413, 415), **more}
    return Operation(
        summary="", scope=scope, work=work, success=(200, None), alike=(201,), empty=(204,), **more
    )


_READ = _operation(Scope.LINKS_READ)
_COUNT = _operation(Scope.LINKS_READ, deadline_s=ADMIN_S)
_WRITE = _operation(Scope.LINKS_WRITE, work=WorkKind.WRITE)
_CREATE = _operation(Scope.LINKS_WRITE, work=WorkKind.WRITE, limit=Policy.CREATE)
_ANY = _operation(None)


def register(app: Any, middleware: ApiMiddleware, services: Services) -> None:
    """Declare the endpoints of Bitly on *app*, the application."""
    api = new_router(PREFIX)
    _Bitlinks(services).register(api, middleware)
    _register_account(api, middleware, services)
    app.include_router(api)


class _Bitlinks:
    """The operations on bitlinks."""

    def __init__(self, services: Services) -> None:
        self._links, self._bulk, self._stats = services.links, services.bulk, services.stats
        self._domains = services.domains

    def register(self, api: Router, middleware: ApiMiddleware) -> None:
        """Declare them on *api*."""

        def of(operation: Operation, handler: Any) -> Any:
            return middleware.endpoint(operation, dialect=DIALECT)(handler)

        api.post("/shorten")(of(_CREATE, self.shorten))
        api.post("/bitlinks")(of(_CREATE, self.create_bitlink))
        api.post("/expand")(of(_READ, self.expand))
        api.get("/bitlinks/:domain/:hash")(of(_READ, self.get_bitlink))
        api.patch("/bitlinks/:domain/:hash")(of(_WRITE, self.change_bitlink))
        api.get("/bitlinks/:domain/:hash/clicks/summary")(of(_COUNT, self.count_clicks))

    async def shorten(self, call: Call[None]) -> Response:
        """Answer with the bitlink that leads there already, or make one; as Bitly does."""
        body = json_body(call.request, Shorten)
        if isinstance(body, Response):
            return body
        domain = await self._checked(body)
        sent = LinkFields(long_url=body.long_url)
        if not may_read(call.principal):
            # It may not learn what is there.
            return await self._created(sent, domain, call)
        item = NewItem(fields=sent, slug=None, named=frozenset(), domain=domain, reuse=True)
        checked = self._bulk.checked(item, None, ORDINARY)
        outcome = await self._bulk.create([checked], render=lambda _: b"")
        # No idempotent request was sent, so there is no stored answer.
        assert isinstance(outcome, BatchDone)  # noqa: S101
        match outcome.outcomes[0]:
            case Stored(link, is_new):
                return json_response(201 if is_new else 200, bitlink(link, self._domains.index))
            case Kept(link):
                return json_response(200, bitlink(link, self._domains.index))
            case other:
                raise AssertionError(other)

    async def create_bitlink(self, call: Call[None]) -> Response:
        """Make a bitlink, whatever leads there already."""
        body = json_body(call.request, CreateBitlink)
        if isinstance(body, Response):
            return body
        _refuse(deeplinks=body.deeplinks, expiration_at=body.expiration_at)
        domain = await self._checked(body)
        sent = LinkFields(long_url=body.long_url, title=body.title or "", tags=body.tags)
        return await self._created(sent, domain, call, body.keyword or None)

    async def _created(
        self, sent: LinkFields, domain: Domain, call: Call[None], keyword: str | None = None
    ) -> Response:
        request = idempotent_request(call.request, call.principal.key_id)
        lengths = MOVED if call.principal.may(Scope.ADMIN) else ORDINARY
        outcome = await self._links.create(
            sent, domain=domain, custom_slug=keyword, lengths=lengths, request=request
        )
        match outcome:
            case Created():
                link = shown(outcome, sent, call.principal)
                return json_response(201, bitlink(link, self._domains.index))
            case SlugTaken(link, slug):
                return slug_taken(name_of(slug or link.slug), link, call.principal)
            case RequestMismatch():
                return errors.idempotency_key_reused()
            case ExternalIdTaken():
                raise AssertionError("no external id was sent")
            case _:
                assert_never(outcome)

    async def expand(self, call: Call[None]) -> Response:
        """Say where a bitlink leads."""
        body = json_body(call.request, Expand)
        if isinstance(body, Response):
            return body
        domain, _, name = body.bitlink_id.partition("/")
        link = await self._found(domain, unquote(name))
        if link is None:
            return errors.not_found()
        whole = bitlink(link, self._domains.index)
        return json_response(200, {name: whole[name] for name in ("created_at", "link", "id", "long_url")})

    async def get_bitlink(self, call: Call[None]) -> Response:
        """Show a bitlink."""
        link = await self._in_path(call.request)
        return errors.not_found() if link is None else json_response(200, bitlink(link, self._domains.index))

    async def change_bitlink(self, call: Call[None]) -> Response:
        """Change what the body names."""
        body = json_body(call.request, PatchBitlink)
        if isinstance(body, Response):
            return body
        _refuse(deeplinks=body.deeplinks)
        key = await self._key(*_path(call.request))
        outcome = None if key is None else await self._links.change(key, body.patch())
        match outcome:
            case Link():
                if not may_read(call.principal):
                    return empty_response(204)
                return json_response(200, bitlink(outcome, self._domains.index))
            case IsAlias():
                return errors.is_alias(None)
            case Removed() | None:
                return errors.not_found()
            case VersionMismatch() | ExternalIdTaken():
                raise AssertionError("neither a version nor an external id was sent")
            case _:
                assert_never(outcome)

    async def count_clicks(self, call: Call[None]) -> Response:
        """Say how often a bitlink was clicked: in all, or in the last hours, days or weeks."""
        query = call.request.query
        unit, text = query.get("unit") or "day", query.get("units") or "-1"
        if query.get("unit_reference"):
            raise InvalidInput([FieldError("unit_reference", "not_available", "is not available")])
        now = datetime.now(UTC)
        document = {"unit": unit, "unit_reference": now.strftime(_TIME)}
        if text == "-1":
            link = await self._in_path(call.request)
            if link is None:
                return errors.not_found()
            return json_response(200, {**document, "units": -1, "total_clicks": link.visits})
        units = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
        length = _UNITS.get(unit)
        if length is None or not 1 <= units * length / timedelta(hours=1) <= _MAX_HOURS:
            message = f"must be -1, or 1 and more of {', '.join(_UNITS)} up to {_MAX_HOURS} hours in all"
            raise InvalidInput([FieldError("units", "units_invalid", message)])
        key = await self._key(*_path(call.request))
        stats = (
            None
            if key is None
            else await self._stats.hourly(key, since=now - units * length + _UNITS["hour"])
        )
        if not isinstance(stats, HourlyStats):
            return errors.not_found()
        return json_response(200, {**document, "units": units, "total_clicks": sum(stats.hours)})

    async def _checked(self, body: Shorten) -> Domain:
        """Return the domain that *body* names; raises InvalidInput, also for another group."""
        if body.group_guid not in {None, "", GROUP}:
            message = f"is no group of this service, whose only one is {GROUP}"
            raise InvalidInput([FieldError("group_guid", "group_unknown", message)])
        host = None if body.domain in {None, "", BITLY_DOMAIN} else body.domain
        domain = await self._domains.named(host)
        reach().check_domain(domain)
        return domain

    async def _key(self, domain: str, name: str) -> Slug | None:
        host = None if domain.lower() == BITLY_DOMAIN else domain
        try:
            found = await self._domains.find(host)
        except InvalidInput:
            return None
        return None if found is None else found.known_key(name)

    async def _found(self, domain: str, name: str) -> Link | None:
        key = await self._key(domain, name)
        outcome = None if key is None else await self._links.get(key)
        return outcome if isinstance(outcome, Link) else None

    async def _in_path(self, request: Request) -> Link | None:
        return await self._found(*_path(request))


def _register_account(api: Router, middleware: ApiMiddleware, services: Services) -> None:
    """Declare what clients ask for of the account: each key is a user, of the one group."""

    def group() -> dict[str, Any]:
        hosts = [one.host for one in services.domains.index if reach().has_domain(one.domain_id)]
        return {"guid": GROUP, "name": GROUP, "is_active": True, "bsds": hosts, "role": "org-admin"}

    @api.get("/user")
    @middleware.endpoint(_ANY, dialect=DIALECT)
    async def get_user(call: Call[None]) -> Response:
        key_id = call.principal.key_id
        user = {"login": key_id, "name": key_id, "is_active": True, "emails": []}
        return json_response(200, {**user, "default_group_guid": GROUP})

    @api.get("/groups")
    @middleware.endpoint(_READ, dialect=DIALECT)
    async def list_groups(_call: Call[None]) -> Response:
        return json_response(200, {"groups": [group()]})

    @api.get("/groups/:guid")
    @middleware.endpoint(_READ, dialect=DIALECT)
    async def get_group(call: Call[None]) -> Response:
        return (
            json_response(200, group()) if call.request.path_params["guid"] == GROUP else errors.not_found()
        )


def bitlink(link: Link, domains: DomainIndex) -> dict[str, Any]:
    """Return *link* as Bitly shows it."""
    short = domains.short_url(link.slug)
    return {
        "created_at": link.created_at.astimezone(UTC).strftime(_TIME),
        "id": f"{domains.of(link.slug).host}/{name_of(link.slug)}",
        "link": short,
        "custom_bitlinks": [],
        "long_url": link.fields.long_url,
        "title": link.fields.title,
        "archived": not link.fields.enabled,
        "tags": link.fields.tags,
        "deeplinks": [],
        "references": {"group": f"{domains.public_url}{PREFIX}/groups/{GROUP}"},
    }


def _path(request: Request) -> tuple[str, str]:
    return unquote(request.path_params["domain"]), unquote(request.path_params["hash"])


def _refuse(**asked: object) -> None:
    """Refuse each field that asks for what this service cannot do; raises InvalidInput."""
    faults = [FieldError(name, "not_available", "is not available") for name, value in asked.items() if value]
    if faults:
        raise InvalidInput(faults)
