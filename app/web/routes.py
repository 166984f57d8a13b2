"""The HTTP API: each handler parses, calls one verb of the service, and renders."""

# No `from __future__ import annotations` here: Robyn's own server reads the annotations of
# handlers as objects, and cannot call a handler whose annotations are text.

import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from app.domain.errors import FieldError, InvalidInput, Overloaded, Unavailable
from app.domain.link import Link, Slug
from app.domain.slug import is_well_formed
from app.ports import IdempotentRequest, Policy, RequestMismatch, VersionMismatch
from app.resilience.admission import Kind
from app.resilience.deadline import ADMIN_S, WRITE_S, within
from app.service.keys import Principal, Scope
from app.service.links import Removed, SlugTaken
from app.service.stats import HourlyStats
from app.web import errors, health, openapi, schemas
from app.web.answer import Answer, Headers, empty_answer, json_answer, problem
from app.web.redirect import with_query
from app.web.robyn_compat import to_response
from app.web.services import Services

Request = Any  # robyn.Request; only robyn_compat may import robyn
_Verb = Callable[[Request, Principal], Awaitable[Answer]]

_DEFAULT_PAGE, _MAX_PAGE = 50, 200
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
# What handlers read. One that is there and cannot be read must not pass for one that is not there.
READ_HEADERS = ("authorization", "content-type", "idempotency-key", "if-match")
_ETAG = re.compile(r'"([1-9][0-9]{0,15})"\Z')
_ROBOTS = b"User-agent: *\nDisallow: /api/\n"


def register(application: Any, services: Services) -> Mapping[tuple[str, str], Kind]:
    """Declare every route on a Robyn *application*; return which must be let in, and as what."""
    api = _Api(services)
    kinds = {}
    for method, path, scope, deadline_s, verb in (
        ("POST", "/api/v1/links", Scope.LINKS_WRITE, WRITE_S, api.create),
        ("GET", "/api/v1/links", Scope.LINKS_READ, ADMIN_S, api.page),
        ("GET", "/api/v1/links/:slug", Scope.LINKS_READ, WRITE_S, api.read),
        ("GET", "/api/v1/links/:slug/stats", Scope.LINKS_READ, ADMIN_S, api.stats),
        ("PATCH", "/api/v1/links/:slug", Scope.LINKS_WRITE, WRITE_S, api.change),
        ("DELETE", "/api/v1/links/:slug", Scope.LINKS_WRITE, WRITE_S, api.remove),
        ("POST", "/api/v1/cache/invalidate", Scope.CACHE_WRITE, ADMIN_S, api.invalidate),
    ):
        kind = kinds[method, path] = Kind.WRITE if scope is Scope.LINKS_WRITE else Kind.LIST
        application.add_route(method, path, _guarded(services, kind, scope, deadline_s, verb))

    # Robyn's own server has no raw query string to give, and leaves the default.
    async def redirect(slug: str, ip_addr: str, method: str, query_string: str = "") -> Any:
        answer = await services.lane.answer(slug, ip_addr, is_head=method == "HEAD")
        return to_response(with_query(answer, query_string))

    async def healthz() -> Any:
        return to_response(health.alive())

    readiness = health.Readiness()

    async def readyz() -> Any:
        if services.is_draining():
            return to_response(health.draining())
        return to_response(await readiness.answer(services.probes, services.guards))

    async def robots() -> Any:
        return to_response(Answer(200, [("content-type", "text/plain; charset=utf-8")], _ROBOTS))

    async def describe() -> Any:
        return to_response(openapi.document(services.public_url))

    application.add_route("GET", "/healthz", healthz)
    application.add_route("GET", "/readyz", readyz)

    async def metrics() -> Any:
        return to_response(await services.metrics.answer())

    application.add_route("GET", "/metrics", metrics)
    application.add_route("GET", "/robots.txt", robots)
    application.add_route("GET", "/api/v1/openapi.json", describe)
    application.add_route("GET", "/:slug", redirect)
    return kinds


def _guarded(
    services: Services, kind: Kind, scope: Scope, deadline_s: float, verb: _Verb
) -> Callable[..., Any]:
    """Put limits, authentication and the deadline before *verb*, and its errors in words after it."""

    async def handler(request: Request) -> Any:
        try:
            entered = services.entrance.enter(kind)
        except Overloaded:
            return to_response(errors.overloaded())
        succeeded = False
        try:
            answer = await answered(request)
            succeeded = answer.status < 500
        finally:
            services.entrance.leave(kind, entered, succeeded=succeeded)
        return to_response(answer)

    async def answered(request: Request) -> Answer:
        try:
            async with within(deadline_s):
                return await _admitted(services, scope, verb, request)
        except InvalidInput as error:
            return errors.invalid(error)
        except schemas.UnreadableBody as error:
            return errors.unreadable(str(error))
        except (Unavailable, TimeoutError) as error:
            return errors.unavailable(error)

    return handler


async def _admitted(services: Services, scope: Scope, verb: _Verb, request: Request) -> Answer:
    gate, client = services.gate, request.ip_addr
    # An address pays for looking a key up before it is looked up, and gets it back if there is
    # such a key: who tries too many gets no further look-up, however many are sent at once.
    if not gate.admit(Policy.ANONYMOUS, client):
        return errors.too_many_requests(gate.refusal(Policy.ANONYMOUS, client))
    principal = await _principal(services, request, client)
    if principal is None:
        return errors.unauthorized()
    gate.refund(Policy.ANONYMOUS, client)
    if not gate.admit(Policy.API, principal.key_id):
        return errors.too_many_requests(gate.refusal(Policy.API, principal.key_id))
    if not principal.may(scope):
        return errors.forbidden(scope)
    return await verb(request, principal)


async def _principal(services: Services, request: Request, client: str) -> Principal | None:
    scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return await services.authenticator.authenticate(token)
    except Unavailable:
        services.gate.refund(Policy.ANONYMOUS, client)
        raise


class _Api:
    """The verbs over HTTP."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(self, request: Request, principal: Principal) -> Answer:
        body = _json_body(request)
        if body is None:
            return errors.not_json()
        if not self._services.gate.admit(Policy.CREATE, principal.key_id):
            return errors.too_many_requests(self._services.gate.refusal(Policy.CREATE, principal.key_id))
        draft = schemas.read(body, schemas.CreateLink)
        outcome = await self._services.links.create(
            draft.fields(), custom_slug=draft.slug, request=_idempotent_request(request, principal, body)
        )
        if isinstance(outcome, RequestMismatch):
            detail = "This Idempotency-Key was used before with another body."
            return problem(422, "idempotency_key_reused", "The idempotency key is taken", detail=detail)
        if isinstance(outcome, SlugTaken):
            taken = None if outcome.link.removed_at else self._document(outcome.link)
            why = "is in use" if taken else "was in use, and slugs are never given out twice"
            detail = f"{outcome.link.slug} {why}."
            return problem(409, "slug_taken", "The slug is taken", detail=detail, link=taken)
        location = ("location", f"/api/v1/links/{outcome.link.slug}")
        replayed: Headers = [("idempotency-replayed", "true")] if outcome.replayed else []
        return self._link(201, outcome.link, [location, *replayed])

    async def page(self, request: Request, _principal: Principal) -> Answer:
        limit = _limit(request.query_params.get("limit", None))
        page = await self._services.links.page(
            after=_after(request.query_params.get("cursor", None)), limit=limit
        )
        links = [self._document(link) for link in page.links]
        return json_answer(200, schemas.LinkPage(links, _cursor(page.next_after)))

    async def read(self, request: Request, _principal: Principal) -> Answer:
        name = _slug(request)
        return self._outcome(await self._services.links.get(name) if name else None)

    async def stats(self, request: Request, _principal: Principal) -> Answer:
        name, since, until = _slug(request), _time(request, "since"), _time(request, "until")
        outcome = await self._services.stats.hourly(name, since=since, until=until) if name else None
        if not isinstance(outcome, HourlyStats):
            return self._outcome(outcome)
        return json_answer(200, schemas.stats_document(outcome))

    async def change(self, request: Request, _principal: Principal) -> Answer:
        body = _json_body(request)
        if body is None:
            return errors.not_json()
        patch = schemas.read(body, schemas.PatchLink).changes()
        if not patch:
            raise InvalidInput([FieldError("body", "nothing_to_change", "must name at least one field")])
        name, expected = _slug(request), _if_match(request)
        return self._outcome(
            await self._services.links.change(name, patch, expected_version=expected) if name else None
        )

    async def remove(self, request: Request, _principal: Principal) -> Answer:
        name, expected = _slug(request), _if_match(request)
        outcome = await self._services.links.remove(name, expected_version=expected) if name else None
        return empty_answer(204) if isinstance(outcome, Link) else self._outcome(outcome)

    async def invalidate(self, request: Request, _principal: Principal) -> Answer:
        body = _json_body(request)
        if body is None:
            return errors.not_json()
        slugs = list(dict.fromkeys(schemas.read(body, schemas.Invalidate).slugs))
        if not 1 <= len(slugs) <= schemas.MAX_SLUGS:
            message = f"must name 1 to {schemas.MAX_SLUGS} slugs"
            raise InvalidInput([FieldError("slugs", "slugs_count", message)])
        known = await self._services.links.invalidate([Slug(slug) for slug in slugs if is_well_formed(slug)])
        found = set(known)
        unknown = [slug for slug in slugs if slug not in found]
        return json_answer(202, schemas.Invalidated(len(known), unknown))

    def _outcome(self, outcome: Link | VersionMismatch | Removed | None) -> Answer:
        if outcome is None:
            return errors.not_found()
        if isinstance(outcome, Removed):
            return errors.gone()
        if isinstance(outcome, VersionMismatch):
            current = self._document(outcome.current)
            detail = f"The link is at version {outcome.current.version}."
            return problem(
                412,
                "version_mismatch",
                "The link has changed meanwhile",
                detail=detail,
                link=current,
            )
        return self._link(200, outcome)

    def _link(self, status: int, link: Link, headers: Headers | None = None) -> Answer:
        etag = ("etag", f'"{link.version}"')
        return json_answer(status, self._document(link), [etag, *(headers or [])])

    def _document(self, link: Link) -> schemas.LinkDocument:
        return schemas.link_document(link, self._services.public_url)


def _slug(request: Request) -> Slug | None:
    """Return the slug in the path; None if no link can have it."""
    text = request.path_params["slug"]
    return Slug(text) if is_well_formed(text) else None


def _json_body(request: Request) -> bytes | None:
    """Return the body if it is declared to be JSON."""
    content_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        return None
    body = request.body
    return body.encode() if isinstance(body, str) else bytes(body)


def _idempotent_request(request: Request, principal: Principal, body: bytes) -> IdempotentRequest | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.match(key):
        message = "must be 1 to 255 printable ASCII characters without spaces"
        raise InvalidInput([FieldError("Idempotency-Key", "idempotency_key_malformed", message)])
    return IdempotentRequest(principal.key_id, key, hashlib.sha256(body).digest())


def _if_match(request: Request) -> int | None:
    value = request.headers.get("if-match")
    if value is None or value.strip() == "*":
        return None
    match = _ETAG.match(value.strip())
    if match is None:
        message = 'must be one ETag of this link, as in "3"'
        raise InvalidInput([FieldError("If-Match", "if_match_malformed", message)])
    return int(match[1])


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_PAGE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MAX_PAGE or len(text) > 9:
        raise InvalidInput([FieldError("limit", "limit_invalid", f"must be 1 to {_MAX_PAGE}")])
    return int(text)


def _time(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name, None)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        message = "must be ISO 8601, as in 2030-01-31T12:00:00Z"
        raise InvalidInput([FieldError(name, "time_unreadable", message)]) from None


def _cursor(after: int | None) -> str | None:
    return None if after is None else base64.urlsafe_b64encode(b"%d" % after).decode().rstrip("=")


def _after(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if not text.isdigit() or len(text) > 18:
            raise ValueError
    except (binascii.Error, ValueError):
        raise InvalidInput(
            [FieldError("cursor", "cursor_invalid", "is not a cursor of this listing")]
        ) from None
    return int(text)
