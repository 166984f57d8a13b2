"""The HTTP API: each handler calls one verb of the service, and renders its outcome."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar, assert_never

import msgspec
from msgspec.structs import replace

from app.domain.domains import Domain, DomainIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, Slug
from app.domain.link_key import name_of
from app.domain.slug import MOVED, ORDINARY, Lengths
from app.domain.target import MAX_HOST_LENGTH
from app.ports import ExternalIdTaken, IdempotentRequest, Policy, RequestMismatch, VersionMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.bulk import BulkLinks
from app.service.domains import Domains
from app.service.key_management import KeyManagement, check_owner
from app.service.keys import Principal, Scope
from app.service.links import Created, IsAlias, Links, Removed, SlugTaken
from app.web import conditions, conflicts, errors, patterns, schemas
from app.web.endpoint import Operation, Parameter
from app.web.middleware import ApiMiddleware, Call
from app.web.request import Request
from app.web.response import Headers, Response, empty_response, json_response
from app.web.reuse import api_path, make_or_find
from app.web.robyn_app import Router

_MAX_IDEMPOTENCY_KEY = 255
_IDEMPOTENCY_KEY = re.compile(rf"[\x21-\x7e]{{1,{_MAX_IDEMPOTENCY_KEY}}}\Z")

IF_MATCH = Parameter(
    "If-Match",
    "header",
    conditions.SCHEMA,
    description='Change only one of these versions, as in "3" or "3", "4".',
    is_list=True,
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    conditions.SCHEMA,
    description="Answer a read by 304, and a change by 412, if the link is still at one of these versions.",
    is_list=True,
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "pattern": f"^[!-~]{{1,{_MAX_IDEMPOTENCY_KEY}}}$"},
    description="The same key with the same body makes one link, however often it is sent (24 hours).",
)
DOMAIN = Parameter(
    "domain",
    "query",
    {"type": "string", "maxLength": MAX_HOST_LENGTH, "pattern": patterns.HOST, "examples": ["go.example"]},
    description="The host of the link's domain. Default: that of the base URL.",
)

MAX_SLUGS = 1000
_Slugs = Annotated[list[str], schemas.described(minItems=1, maxItems=MAX_SLUGS, examples=[["spring-sale"]])]


class Invalidate(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/cache/invalidate`."""

    slugs: _Slugs
    domain: schemas.Domain | None = None


class Invalidated(msgspec.Struct):
    """The outcome of an invalidation; `unknown` are the slugs that no link has."""

    invalidated: int
    unknown: list[str]


def register_links(
    api: Router,
    middleware: ApiMiddleware,
    links: Links,
    *,
    bulk: BulkLinks,
    domains: Domains,
    keys: KeyManagement,
) -> None:
    """Declare the endpoints of links on *api*, the router of `/api/v1`."""

    @api.post("/links")
    @middleware.endpoint(
        Operation(
            summary="Make a link",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            limit=Policy.CREATE,
            success=(201, schemas.LinkDocument),
            alike=(200,),
            problems=(409, 411, 413, 415, 422),
            parameters=(IDEMPOTENCY_KEY,),
        ),
        body=schemas.NewLink,
    )
    async def create_link(call: Call[schemas.NewLink]) -> Response:
        draft = call.body
        domain = await domains.named(draft.domain)
        aliases = await _aliases(draft, domain, domains)
        if draft.reuse:
            request = idempotent_request(call.request, call.principal.key_id)
            return await make_or_find(
                draft, call.principal, request, bulk=bulk, domains=domains.index, domain=domain
            )
        outcome = await links.create(
            draft.fields(domain.settings.redirect_code),
            domain=domain,
            expires_in=draft.lifetime(),
            custom_slug=draft.slug,
            lengths=lengths_for(call.principal),
            aliases=aliases,
            request=idempotent_request(call.request, call.principal.key_id),
        )
        return _created(outcome, domains.index, call.principal)

    @api.get("/links/:slug")
    @middleware.endpoint(
        Operation(
            summary="Read a link",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=WRITE_S,
            success=(200, schemas.LinkDocument),
            empty=(304,),
            problems=(404, 410, 412, 422),
            parameters=(DOMAIN, IF_MATCH, IF_NONE_MATCH),
        )
    )
    async def get_link(call: Call[None]) -> Response:
        # Read first: a header that breaks a rule does so whatever has become of the link.
        wanted = conditions.if_match(call.request.headers.get("if-match"))
        held = conditions.if_none_match(call.request.headers.get("if-none-match"))
        name = await key_in_path(call.request, domains)
        outcome = await links.get(name) if name else None
        if isinstance(outcome, Link) and _names(wanted, outcome) and _names(held, outcome):
            return empty_response(304, [etag(outcome)])
        response = outcome_response(_matching(outcome, wanted), domains.index, call.principal)
        return at_own_slug(response, outcome, name, domains.index)

    @api.patch("/links/:slug")
    @middleware.endpoint(
        Operation(
            summary="Change what the body names",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, schemas.LinkDocument),
            empty=(204,),
            problems=(404, 409, 410, 411, 412, 413, 415, 422),
            parameters=(DOMAIN, IF_MATCH, IF_NONE_MATCH),
        ),
        body=schemas.PatchLink,
    )
    async def change_link(call: Call[schemas.PatchLink]) -> Response:
        patch, expires_in = call.body.changes(), call.body.lifetime()
        owner = call.body.new_owner()
        if owner is not None and not call.principal.may(Scope.ADMIN):
            return errors.forbidden(Scope.ADMIN)
        check_owner(owner, await keys.owners() if owner else ())
        if not patch and expires_in is None and owner is None:
            raise InvalidInput([FieldError("body", "nothing_to_change", "must name at least one field")])
        outcome = await conditionally(
            links.get,
            domains,
            call.request,
            lambda name, version: links.change(
                name, patch, expires_in=expires_in, expected_version=version, owner=owner
            ),
        )
        if isinstance(outcome, Link) and not may_read(call.principal):
            return empty_response(204, [etag(outcome)])
        return outcome_response(outcome, domains.index, call.principal)

    @api.delete("/links/:slug")
    @middleware.endpoint(
        Operation(
            summary="Remove a link, with its aliases; its slugs stay taken",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(204, None),
            problems=(404, 409, 410, 411, 412, 422),
            parameters=(DOMAIN, IF_MATCH, IF_NONE_MATCH),
        )
    )
    async def remove_link(call: Call[None]) -> Response:
        outcome = await conditionally(
            links.get,
            domains,
            call.request,
            lambda name, version: links.remove(name, expected_version=version),
        )
        is_removed = isinstance(outcome, Link)
        return empty_response(204) if is_removed else outcome_response(outcome, domains.index, call.principal)


def register_cache(api: Router, middleware: ApiMiddleware, links: Links, domains: Domains) -> None:
    """Declare the endpoint that invalidates caches on *api*."""

    @api.post("/cache/invalidate")
    @middleware.endpoint(
        Operation(
            summary="Make every cache read links again",
            scope=Scope.CACHE_WRITE,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(202, Invalidated),
            problems=(411, 413, 415, 422),
        ),
        body=Invalidate,
    )
    async def invalidate(call: Call[Invalidate]) -> Response:
        if not 1 <= len(call.body.slugs) <= MAX_SLUGS:
            message = f"must name 1 to {MAX_SLUGS} slugs"
            raise InvalidInput([FieldError("slugs", "slugs_count", message)])
        domain = await domains.named(call.body.domain)
        keys = {slug: domain.known_key(slug) for slug in call.body.slugs}
        asked = dict.fromkeys(key for key in keys.values() if key is not None)
        found = set(await links.invalidate(list(asked)))
        unknown = [slug for slug, key in keys.items() if key not in found]
        return json_response(202, Invalidated(len(found), unknown))


_Outcome = Link | VersionMismatch | ExternalIdTaken | Removed | IsAlias | None
G = TypeVar("G")
C = TypeVar("C")


async def conditionally(
    get: Callable[[Slug], Awaitable[Link | G]],
    domains: Domains,
    request: Request,
    change: Callable[[Slug, int | None], Awaitable[C]],
) -> C | G | VersionMismatch | None:
    """
    Make *change* to the link in the path, at a version that If-Match and If-None-Match allow.

    Args:
        get: finds the link, or what is in its place.
    """
    wanted = conditions.if_match(request.headers.get("if-match"))
    held = conditions.if_none_match(request.headers.get("if-none-match"))
    name = await key_in_path(request, domains)
    if name is None:
        return None
    if held == frozenset() and (wanted is None or len(wanted) == 1):
        # The store compares: a version that is not there needs no look first.
        return await change(name, next(iter(wanted)) if wanted else None)
    current = await get(name)
    if not isinstance(current, Link):
        return current
    if not _names(wanted, current) or _names(held, current):
        return VersionMismatch(current)
    return await change(name, current.version)


def _matching(outcome: _Outcome, wanted: frozenset[int] | None) -> _Outcome:
    if isinstance(outcome, Link) and not _names(wanted, outcome):
        return VersionMismatch(outcome)
    return outcome


def _names(versions: frozenset[int] | None, link: Link) -> bool:
    return versions is None or link.version in versions


async def _aliases(draft: schemas.NewLink, domain: Domain, domains: Domains) -> Sequence[tuple[Domain, str]]:
    """Return the further slugs of *draft*, a link of *domain*, with their domains; raises InvalidInput."""
    if draft.reuse and draft.aliases:
        raise InvalidInput([FieldError("aliases", "reuse_restricted", "excludes reuse")])
    return [
        (await domains.named(one.domain, "aliases") if one.domain else domain, one.slug)
        for one in draft.aliases
    ]


def lengths_for(principal: Principal) -> Lengths:
    """Return which lengths *principal* may choose for slugs."""
    return MOVED if principal.may(Scope.ADMIN) else ORDINARY


def may_read(principal: Principal) -> bool:
    """May an answer to *principal* hold a link that it did not just send?"""
    return principal.may(Scope.LINKS_READ)


def _created(
    outcome: Created | SlugTaken | ExternalIdTaken | RequestMismatch,
    domains: DomainIndex,
    principal: Principal,
) -> Response:
    match outcome:
        case Created(link, replayed):
            host = domains.of(link.slug).host
            location = ("location", api_path(domains, host, name_of(link.slug)))
            mark = [("idempotency-replayed", "true")] if replayed else []
            if replayed and not principal.may_see(link):
                # It may have been changed by other keys since, or handed over.
                return empty_response(201, [location, *mark])
            return _link(201, link, domains, [location, *mark])
        case SlugTaken(link, name):
            return conflicts.slug_taken(link, principal, domains, slug=name)
        case ExternalIdTaken(link):
            return conflicts.external_id_taken(link, principal, domains)
        case RequestMismatch():
            return errors.idempotency_key_reused()
        case _:
            assert_never(outcome)


def outcome_response(outcome: _Outcome, domains: DomainIndex, principal: Principal) -> Response:
    """Return the answer to a request about one link."""
    match outcome:
        case Link():
            return _link(200, outcome, domains)
        case VersionMismatch(current):
            return conflicts.version_mismatch(current, principal, domains)
        case ExternalIdTaken(link):
            return conflicts.external_id_taken(link, principal, domains)
        case IsAlias(link):
            return errors.is_alias(conflicts.seen(link, principal, domains))
        case Removed():
            return errors.gone()
        case None:
            return errors.not_found()
        case _:
            assert_never(outcome)


def _link(status: int, link: Link, domains: DomainIndex, headers: Headers = ()) -> Response:
    document = schemas.link_document(link, domains)
    return json_response(status, document, [etag(link), *headers])


def at_own_slug(
    response: Response, outcome: object, name: Slug | None, domains: DomainIndex, below: str = ""
) -> Response:
    """Return *response* with the path of the link, if *name*, as it was asked for, is another slug of it."""
    if not isinstance(outcome, Link) or outcome.slug == name:
        return response
    return replace(response, headers=[*response.headers, content_location(outcome, domains, below)])


def content_location(link: Link, domains: DomainIndex, below: str = "") -> tuple[str, str]:
    """Return the header that names the path of *link*, or one *below* it."""
    host = domains.of(link.slug).host
    return ("content-location", api_path(domains, host, f"{name_of(link.slug)}{below}"))


def etag(link: Link) -> tuple[str, str]:
    """Return the header that names the version of *link*."""
    return ("etag", f'"{link.version}"')


async def key_in_path(request: Request, domains: Domains) -> Slug | None:
    """Return the key of the link in the path; None if there can be none. Raises InvalidInput."""
    text = request.path_params["slug"]
    domain = await domains.find(request.query.get("domain"), "domain")
    return domain.known_key(text) if domain is not None else None


def idempotent_request(request: Request, key_id: str, what: str = "") -> IdempotentRequest | None:
    """Return *request*, which does *what*, as stores remember it, if it has a key; raises InvalidInput."""
    key = idempotency_key(request)
    if key is None:
        return None
    return IdempotentRequest(key_id, key, hashlib.sha256(what.encode() + request.body).digest())


def idempotency_key(request: Request) -> str | None:
    """
    Return the client's name for *request*, if it has one.

    Raises:
        InvalidInput: it is not readable.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.match(key):
        message = f"must be 1 to {_MAX_IDEMPOTENCY_KEY} printable ASCII characters without spaces"
        raise InvalidInput([FieldError("Idempotency-Key", "idempotency_key_malformed", message)])
    return key
