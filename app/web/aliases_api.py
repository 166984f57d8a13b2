"""`/api/v1/links/{slug}/aliases` and `/rename`: further slugs of a link, and another one for it."""

from __future__ import annotations

from typing import Annotated, assert_never

from app.domain.domains import DomainIndex
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link, Slug
from app.domain.slug import MAX_LENGTH
from app.domain.target import MAX_HOST_LENGTH
from app.ports import Replayed, RequestMismatch, VersionMismatch
from app.resilience.admission import WorkKind
from app.resilience.deadline import WRITE_S
from app.service.aliases import Aliases, NoAlias, Outcome
from app.service.domains import Domains
from app.service.keys import Principal, Scope
from app.service.links import IsAlias, Removed, SlugTaken
from app.web import conflicts, errors, patterns, schemas
from app.web.endpoint import Operation, Parameter
from app.web.links_api import (
    DOMAIN,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    conditionally,
    content_location,
    etag,
    idempotent_request,
    lengths_for,
    outcome_response,
)
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import QueryReader, one, printable
from app.web.response import Headers, Response, empty_response, json_response
from app.web.robyn_app import Router

ALIAS = one(
    "alias",
    printable(1, MAX_LENGTH, "alias_invalid", pattern=patterns.PRINTABLE, examples=["spring-2030"]),
    "The slug to take away.",
    is_required=True,
)
ALIAS_DOMAIN = Parameter(
    "alias_domain",
    "query",
    {"type": "string", "maxLength": MAX_HOST_LENGTH, "pattern": patterns.HOST, "examples": ["go.example"]},
    description="The host of the alias's domain. Default: that of the link.",
)


class Rename(schemas.NewAlias, forbid_unknown_fields=True):
    """The body of `POST /api/v1/links/{slug}/rename`: the slug to have instead."""

    keep_old: Annotated[
        bool,
        schemas.described(
            description="The former slug becomes an alias. Otherwise it answers 410, and stays taken."
        ),
    ] = True


def register(api: Router, middleware: ApiMiddleware, aliases: Aliases, domains: Domains) -> None:
    """Declare the endpoints of aliases on *api*, the router of `/api/v1`."""

    @api.post("/links/:slug/aliases")
    @middleware.endpoint(
        Operation(
            summary="Give a link a further slug",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, schemas.LinkDocument),
            empty=(204,),
            problems=(404, 409, 410, 411, 412, 413, 415, 422),
            parameters=(DOMAIN, IF_MATCH, IF_NONE_MATCH),
        ),
        body=schemas.NewAlias,
    )
    async def add_alias(call: Call[schemas.NewAlias]) -> Response:
        host = call.body.domain or call.request.query.get("domain")
        domain, lengths = await domains.named(host), lengths_for(call.principal)

        async def add(name: Slug, version: int | None) -> Outcome:
            return await aliases.add(name, domain, call.body.slug, lengths, expected_version=version)

        outcome = await conditionally(aliases.get, domains, call.request, add)
        return _answer(outcome, domains.index, call.principal)

    @api.delete("/links/:slug/aliases")
    @middleware.endpoint(
        Operation(
            summary="Take an alias from a link; the slug stays taken",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(204, None),
            problems=(404, 409, 410, 411, 412, 422),
            parameters=(DOMAIN, ALIAS, ALIAS_DOMAIN, IF_MATCH, IF_NONE_MATCH),
        )
    )
    async def remove_alias(call: Call[None]) -> Response:
        query = call.request.query
        reader = QueryReader(call.request)
        text = reader.one(ALIAS)
        if text is None and not reader.errors:
            raise InvalidInput([FieldError(ALIAS.name, "alias_missing", "is missing")])
        reader.check()
        domain = await domains.find(query.get("alias_domain") or query.get("domain"), "alias_domain")
        alias = domain.known_key(text) if domain is not None and text is not None else None

        async def remove(name: Slug, version: int | None) -> Outcome | NoAlias:
            return await aliases.remove(name, alias, expected_version=version)

        outcome = await conditionally(aliases.get, domains, call.request, remove)
        if isinstance(outcome, NoAlias):
            return errors.alias_not_found()
        if isinstance(outcome, Link):
            return empty_response(204, [etag(outcome)])
        return _answer(outcome, domains.index, call.principal)

    _register_rename(api, middleware, aliases, domains)


def _register_rename(api: Router, middleware: ApiMiddleware, aliases: Aliases, domains: Domains) -> None:
    @api.post("/links/:slug/rename")
    @middleware.endpoint(
        Operation(
            summary="Give a link another slug; the former one becomes an alias",
            scope=Scope.LINKS_WRITE,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, schemas.LinkDocument),
            empty=(204,),
            problems=(404, 409, 410, 411, 412, 413, 415, 422),
            parameters=(DOMAIN, IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY),
        ),
        body=Rename,
    )
    async def rename_link(call: Call[Rename]) -> Response:
        body = call.body
        host = body.domain or call.request.query.get("domain")
        domain, lengths = await domains.named(host), lengths_for(call.principal)
        what = f"rename {call.request.path_params['slug']} {call.request.query.get('domain')}\n"
        request = idempotent_request(call.request, call.principal.key_id, what)

        async def rename(name: Slug, version: int | None) -> Outcome:
            return await aliases.rename(
                name,
                domain,
                body.slug,
                lengths,
                keep_old=body.keep_old,
                expected_version=version,
                request=request,
            )

        outcome = await conditionally(aliases.get, domains, call.request, rename)
        return _answer(outcome, domains.index, call.principal)


def _answer(outcome: Outcome, domains: DomainIndex, principal: Principal) -> Response:
    match outcome:
        case Link():
            return _link(outcome, domains, principal)
        case Replayed(links):
            return _link(links[0], domains, principal, [("idempotency-replayed", "true")])
        case SlugTaken(link, name):
            return conflicts.slug_taken(link, principal, domains, slug=name)
        case RequestMismatch():
            return errors.idempotency_key_reused()
        case VersionMismatch() | Removed() | IsAlias() | None:
            return outcome_response(outcome, domains, principal)
        case _:
            assert_never(outcome)


def _link(link: Link, domains: DomainIndex, principal: Principal, headers: Headers = ()) -> Response:
    named = [etag(link), content_location(link, domains), *headers]
    if not principal.may_see(link):
        return empty_response(204, named)
    return json_response(200, schemas.link_document(link, domains), named)
