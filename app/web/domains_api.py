"""The API of domains: the hosts that links are visited at."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, ClassVar, assert_never
from urllib.parse import unquote

import msgspec

from app.domain import slug as slugs
from app.domain import target
from app.domain.domains import GENERATED, Domain, DomainIndex, DomainSettings, Robots, checked_host
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import DEFAULT_REDIRECT_CODE, REDIRECT_CODES
from app.domain.link_key import name_of
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.domains import DomainInUse, Domains, DomainTaken
from app.service.keys import Scope
from app.web import errors, patterns
from app.web.endpoint import Operation
from app.web.middleware import ApiMiddleware, Call
from app.web.response import Response, empty_response, json_response
from app.web.robyn_app import Router
from app.web.schemas import described

_Host = Annotated[
    str,
    described(
        maxLength=target.MAX_HOST_LENGTH,
        pattern=patterns.HOST,
        examples=["go.example"],
        description="Without scheme and port. Its visitors have to reach this service.",
    ),
]
_CaseSensitive = Annotated[
    bool,
    described(
        description="False: slugs are stored, and looked up, in lower case. It cannot be changed later."
    ),
]


def _page(description: str) -> msgspec.Meta:
    schema = {
        "maxLength": target.MAX_LENGTH,
        "pattern": patterns.TARGET,
        "examples": ["https://example.com/"],
    }
    return described(**schema, description=description)


_RootUrl = Annotated[str, _page("Where visitors of the host alone are redirected; null: they get 404.")]
_NotFoundUrl = Annotated[str, _page("Where visitors of a link that is not there are redirected; null: 404.")]
_ExpiredUrl = Annotated[str, _page("Where visitors of a link that is gone are redirected; null: 410.")]
_MinSlugLength = Annotated[
    int,
    described(
        minimum=1,
        maximum=slugs.ORDINARY.most,
        description="Of slugs that are chosen; keys with the scope admin choose shorter ones.",
    ),
]
_SlugLength = Annotated[
    int,
    described(
        minimum=GENERATED.least,
        maximum=GENERATED.most,
        description="Of random slugs; null: 7, or 8 where slugs have no case.",
    ),
]
_MultiSegment = Annotated[
    bool,
    described(
        description="True: slugs of new links may have several segments, such as `promo/2026/spring`. Links"
        " that have one are visited, and changed, whatever becomes of the setting."
    ),
]
_Unicode = Annotated[
    bool,
    described(
        description="True: slugs of new links may have letters of other scripts, and emoji. Links that have"
        " them are visited, and changed, whatever becomes of the setting."
    ),
]
_NewCode = Annotated[
    int, described(enum=list(REDIRECT_CODES), description="Of new links that name no `redirect_code`.")
]
_Robots = Annotated[
    Robots,
    described(description="What `/robots.txt` of the host tells crawlers: to follow its links, or not."),
]


class AddDomain(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/domains`."""

    host: _Host
    case_sensitive: _CaseSensitive = True
    root_url: _RootUrl | None = None
    not_found_url: _NotFoundUrl | None = None
    expired_url: _ExpiredUrl | None = None
    min_slug_length: _MinSlugLength = DomainSettings().min_slug_length
    slug_length: _SlugLength | None = None
    multi_segment: _MultiSegment = False
    unicode: _Unicode = False
    redirect_code: _NewCode = DEFAULT_REDIRECT_CODE
    robots: _Robots = Robots.ALLOW


_SETTINGS = [
    field
    for field in msgspec.structs.fields(AddDomain)
    if field.name in {one.name for one in fields(DomainSettings)}
]
_Changes: Any = msgspec.defstruct(
    "_Changes", [(field.name, field.type | msgspec.UnsetType, msgspec.UNSET) for field in _SETTINGS]
)


class PatchDomain(_Changes, forbid_unknown_fields=True):  # type: ignore[misc, call-arg]
    """The body of `PATCH /api/v1/domains/{host}`: what is left out stays as it is."""

    extra_json_schema: ClassVar[dict[str, Any]] = {"minProperties": 1}

    def changes(self) -> Mapping[str, Any]:
        """Return the settings that the body names."""
        values = {field.name: getattr(self, field.name) for field in _SETTINGS}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}


class DomainDocument(msgspec.Struct):
    """A domain. `is_default`: it has the links that name none, and every host that no other has."""

    host: str
    is_default: bool
    case_sensitive: bool
    root_url: str | None
    not_found_url: str | None
    expired_url: str | None
    min_slug_length: int
    slug_length: int | None
    multi_segment: bool
    unicode: bool
    redirect_code: int
    robots: Robots
    created_at: datetime | None
    updated_at: datetime | None


class DomainList(msgspec.Struct):
    """All domains: the default one, then the others by their hosts."""

    domains: list[DomainDocument]


def domain_document(domain: Domain, index: DomainIndex) -> DomainDocument:
    """Return *domain* as the API shows it."""
    return DomainDocument(
        host=domain.host,
        is_default=domain.domain_id == index.default.domain_id,
        case_sensitive=domain.case_sensitive,
        **{field.name: getattr(domain.settings, field.name) for field in _SETTINGS},
        created_at=domain.created_at,
        updated_at=domain.updated_at,
    )


def register(api: Router, middleware: ApiMiddleware, domains: Domains) -> None:
    """Declare the endpoints of domains on *api*, the router of `/api/v1`."""

    @api.get("/domains")
    @middleware.endpoint(
        Operation(
            summary="List the domains",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, DomainList),
            problems=(422,),
        )
    )
    async def list_domains(call: Call[None]) -> Response:
        reach = call.principal.reach
        found = [one for one in await domains.all() if reach.has_domain(one.domain_id)]
        return json_response(200, DomainList([domain_document(one, domains.index) for one in found]))

    @api.post("/domains")
    @middleware.endpoint(
        Operation(
            summary="Serve another host",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(201, DomainDocument),
            problems=(409, 411, 413, 415, 422),
        ),
        body=AddDomain,
    )
    async def add_domain(call: Call[AddDomain]) -> Response:
        body = call.body
        settings = DomainSettings(**{field.name: getattr(body, field.name) for field in _SETTINGS})
        outcome = await domains.add(body.host, settings, case_sensitive=body.case_sensitive)
        match outcome:
            case Domain():
                return json_response(201, domain_document(outcome, domains.index))
            case DomainTaken(domain):
                return errors.domain_taken(domain.host)
            case DomainInUse(slug):
                return errors.domain_is_target(body.host, name_of(slug))
            case _:
                assert_never(outcome)

    _register_one(api, middleware, domains)


def _register_one(api: Router, middleware: ApiMiddleware, domains: Domains) -> None:
    """Declare the endpoints of a single domain."""

    @api.get("/domains/:host")
    @middleware.endpoint(
        Operation(
            summary="Read a domain",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=WRITE_S,
            success=(200, DomainDocument),
            problems=(404, 422),
        )
    )
    async def get_domain(call: Call[None]) -> Response:
        host = _host(call)
        found = None if host is None else await domains.find(host)
        if found is None or not call.principal.reach.has_domain(found.domain_id):
            return errors.not_found()
        return json_response(200, domain_document(found, domains.index))

    @api.patch("/domains/:host")
    @middleware.endpoint(
        Operation(
            summary="Change what the body names",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, DomainDocument),
            problems=(404, 411, 413, 415, 422),
        ),
        body=PatchDomain,
    )
    async def change_domain(call: Call[PatchDomain]) -> Response:
        patch = call.body.changes()
        if not patch:
            raise InvalidInput([FieldError("body", "nothing_to_change", "must name at least one field")])
        host = _host(call)
        changed = None if host is None else await domains.change(host, patch)
        if changed is None:
            return errors.not_found()
        return json_response(200, domain_document(changed, domains.index))

    @api.delete("/domains/:host")
    @middleware.endpoint(
        Operation(
            summary="Serve a host no more, once all its links are removed",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(204, None),
            problems=(404, 409, 411, 422),
        )
    )
    async def remove_domain(call: Call[None]) -> Response:
        host = _host(call)
        outcome = None if host is None else await domains.remove(host)
        match outcome:
            case None:
                return errors.not_found()
            case DomainInUse(slug):
                return errors.domain_in_use(name_of(slug))
            case Domain():
                return empty_response(204)
            case _:
                assert_never(outcome)


def _host(call: Call[Any]) -> str | None:
    """Return the host in the path; None if no domain can have it."""
    text = unquote(call.request.path_params["host"])
    with suppress(InvalidInput):
        checked_host(text)
        return text
    # The host of the base URL may be an IPv6 address.
    return text if text.startswith("[") else None
