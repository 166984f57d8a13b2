"""
The bridge: serves the routes of the Robyn application on granian, by RSGI.

Each request takes the first way that fits: the redirect fast path, a route, 405, 404. The bridge owns
what neither side provides: whole bodies, HEAD and OPTIONS, readable and sendable headers, and the
500 of a handler that fails.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from time import monotonic
from typing import Any, ClassVar

from app.concurrency.origins import request_id
from app.domain.errors import Overloaded
from app.domain.link import REDIRECT_CODES, Slug
from app.domain.link_key import name_of
from app.telemetry.requests import REDIRECT_ROUTE, STEPS_PER_S, UNKNOWN_ROUTE, Exchange, RequestMetrics
from app.web import errors
from app.web import headers as fields
from app.web.accept import wants_page
from app.web.after_slug import SUFFIXES, suffix_of, without_suffix
from app.web.body import LargeBody, is_small, read_body
from app.web.client import client_address, is_local, peer_address
from app.web.endpoint import Endpoint, Route, template
from app.web.intent import intent_of
from app.web.look import look_of, look_of_answer
from app.web.redirects import with_query
from app.web.request import Request, parse_query
from app.web.request_id import failure_id, read_request_id, with_request_id
from app.web.response import Response, check_headers, closing, empty_response
from app.web.robyn_app import new_application, routes_of
from app.web.route_table import SLUG, RouteTable
from app.web.routes import register
from app.web.scope import RsgiScope, host_of
from app.web.services import Services

log = logging.getLogger(__name__)

_READS = ("GET", "HEAD")
# Answers below it return the id of their request, whether the path exists or not.
_API = "/api/"
# Never raised: a refusal has no stack that would tell anything.
_OVERLOADED = Overloaded()
# Routes that people come to by a link or by guessing.
_FOR_PEOPLE = frozenset(
    {REDIRECT_ROUTE, *(REDIRECT_ROUTE + suffix for suffix in SUFFIXES), UNKNOWN_ROUTE, "/"}
)
# What a redirect may be answered with.
_REDIRECTS = (*REDIRECT_CODES, 400, 404, 410, 429, 500, 503)
# What a request may be answered with that asks for what follows a slug.
_LOOKS = (200, 302, 304, 400, 404, 410, 429, 500, 503)
# The tarpit delays these, so that a client that guesses slugs asks less often.
_DELAYED = (404, 429)


class RsgiApplication:
    """
    What granian serves, without websockets.

    Args:
        open_services: opened in each worker before its first request, closed after its last.
        with_fast_path: False sends redirects through their route as well, for tests and
            measurements.
    """

    # Whether a front passes requests on; see `app.web.fronted`.
    is_fronted: ClassVar[bool] = False

    def __init__(
        self,
        open_services: Callable[[], AbstractAsyncContextManager[Services]],
        *,
        with_fast_path: bool = True,
    ) -> None:
        self._open_services = open_services
        self._with_fast_path = with_fast_path
        self._opened = AsyncExitStack()
        self._services: Services

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open everything; granian calls this in the worker, before the loop runs."""
        loop.run_until_complete(self._open())
        # Modules, routes and connections live as long as the process: if the garbage collector went
        # through them again and again, it would delay the requests under way.
        gc.collect()
        gc.freeze()
        # `hopgate serve` blocks the signal before the fork: until the loop runs, it would be lost.
        loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGTERM})

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close everything; granian calls this when the last request is answered."""
        loop.run_until_complete(self._opened.aclose())

    @property
    def services(self) -> Services:
        """What the application calls; from `__rsgi_init__` on."""
        return self._services

    async def _open(self) -> None:
        self._services = services = await self._opened.enter_async_context(self._open_services())
        application = new_application()
        register(application, services)
        routes = routes_of(application)
        self._table = RouteTable(routes)
        self._measure(services.requests, routes)
        self._refuses = services.admission.refuses
        self._domains = services.domains.index
        self._answer_from_l1 = services.redirects.answer_from_l1
        self._trusted = services.trusted_proxies
        self._tarpit = services.tarpit
        self._pages = services.pages
        self._note_visit = services.note_visit

    def _measure(self, requests: RequestMetrics, routes: Sequence[Route]) -> None:
        self._requests = requests
        for route in routes:
            path, statuses = template(route.path), route.endpoint.statuses
            methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
            requests.declare(path, dict.fromkeys(methods, _REDIRECTS if path == REDIRECT_ROUTE else statuses))
        for suffix in SUFFIXES:
            requests.declare(REDIRECT_ROUTE + suffix, dict.fromkeys(_READS, _LOOKS))
        self._steps = requests.steps

    async def __rsgi__(self, scope: RsgiScope, protocol: Any) -> None:
        """Answer one HTTP request. Every attribute of *scope* is a call into Rust: read each at most once."""
        started = monotonic()
        method = scope.method
        if (method == "GET" or method == "HEAD") and self._with_fast_path:  # noqa: PLR1714 - half the time of a set
            path = scope.path
            # The host is a call into Rust as well, so it is read where it makes a difference.
            try:
                slug = self._visited_strictly(scope, path) if self._domains.has_others else path[1:]
                client = self._client(scope) if self._trusted else peer_address(scope.client)
            except ValueError as error:
                with self._requests.exchange(method, started) as exchange:
                    _send(protocol, exchange, self._named(scope, errors.unreadable(str(error))))
                return
            is_head = method == "HEAD"
            response = None if is_head else self._answer_from_l1(slug, client, started)
            if response is not None and response.is_visit:
                target = response.headers[0][1]
                if response.forward_query:
                    response = with_query(response, scope.query_string)
                status = response.status
                protocol.response_empty(status, response.headers)
                if self._note_visit:
                    self._note_visit(look_of(slug, client, scope.headers, target, scope.query_string))
                # An exchange would cost as much as the rest: see `app.telemetry.requests`.
                took_s = monotonic() - started
                try:
                    self._steps[status][int(took_s * STEPS_PER_S)] += 1
                except LookupError:  # it took unusually long, or has a status that links should not have
                    self._requests.observe(REDIRECT_ROUTE, method, status, took_s)
                return
            if response is not None or (slug := self._visited(scope, path) or ""):
                with self._requests.exchange(method, started, REDIRECT_ROUTE) as exchange:
                    if response is None:
                        response = await self._look_up(scope, slug, client, is_head=is_head)
                    await self._send_later(scope, protocol, exchange, response)
                if not is_head:
                    self._note(scope, slug, client, response)
                return
        with self._requests.exchange(method, started) as exchange:
            await _send_any(protocol, exchange, await self._dispatch(scope, protocol, exchange))

    def _note(self, scope: RsgiScope, slug: str, client: str, response: Response) -> None:
        """Note a GET of *slug* if *response* makes it a visit, or says that there is no link."""
        if self._note_visit and (look := look_of_answer(slug, client, scope, response)):
            self._note_visit(look)

    async def _send_later(
        self, scope: RsgiScope, protocol: Any, exchange: Exchange, response: Response
    ) -> None:
        """Send the answer to a visit that the L1 cache did not redirect."""
        if response.forward_query:
            response = with_query(response, scope.query_string)
        if (response.body and response.status in _DELAYED) or response.stands_for == 404:
            await self._tarpit.hold()
        _send(protocol, exchange, self._negotiated(scope, response))

    def _refuse(self, scope: RsgiScope, protocol: Any, response: Response) -> None:
        """Send *response* instead of an answer of the application, and count it."""
        path, method = scope.path, scope.method
        is_redirect = method in _READS and self._visited(scope, path) is not None
        route = REDIRECT_ROUTE if is_redirect else UNKNOWN_ROUTE
        with self._requests.exchange(method, monotonic(), route) as exchange:
            _send(protocol, exchange, self._named(scope, response))

    def _named(self, scope: RsgiScope, response: Response) -> Response:
        """Return *response*, made by no endpoint: below `/api/` with the id of its request, or as a page."""
        if not scope.path.startswith(_API):
            return self._negotiated(scope, response)
        return with_request_id(response, read_request_id(scope.headers, self._services.trace_id))

    def _negotiated(self, scope: RsgiScope, response: Response) -> Response:
        """Return *response*, or the page in its place if the client reads and prefers one."""
        if not response.body or scope.method not in _READS:
            return response
        return self._pages.negotiated(response, scope.headers)

    def _visited_strictly(self, scope: RsgiScope, path: str) -> str:
        """Return the link that a visit of *path* is for, or nothing. Raises ValueError: the host is wrong."""
        fields.check_host(scope.headers, scope.http_version)
        return self._visited(scope, path) or ""

    def _visited(self, scope: RsgiScope, path: str) -> Slug | None:
        """Return the link that a visit of *path* is for; None if it is for a page."""
        slug = self._services.redirects.visited(host_of(scope), path[1:])
        return None if slug is None or self._table.is_before_slug(name_of(slug)) else slug

    def _visit(
        self, scope: RsgiScope, path: str
    ) -> tuple[str, dict[str, Endpoint], Mapping[str, str]] | None:
        """Return what answers a visit of a link whose slug no route describes; None if *path* is no such."""
        text = path[1:]
        if self._visited(scope, f"/{without_suffix(text)}") is None:
            return None
        found = self._table.find(f"/-{suffix_of(text)}")
        return None if found is None else (*found[:2], {SLUG[1:]: text})

    def _template(self, scope: RsgiScope) -> str | None:
        """Return the route of *scope* as OpenAPI writes it; None if it has none."""
        path = scope.path
        found = self._table.find(path) or self._visit(scope, path)
        return None if found is None else found[0]

    async def _look_up(self, scope: RsgiScope, slug: str, client: str, *, is_head: bool) -> Response:
        headers = scope.headers
        try:
            fields.check_host(headers, scope.http_version)
        except ValueError as error:
            return errors.unreadable(str(error))
        try:
            return await self._services.redirects.answer(
                slug, client, is_head=is_head, intent=lambda: intent_of(headers)
            )
        except Exception as error:  # noqa: BLE001 - the last resort: the client gets a response
            return self.failed("GET /{slug}", error)

    async def _dispatch(self, scope: RsgiScope, protocol: Any, exchange: Exchange) -> Response:
        try:
            fields.check_host(scope.headers, scope.http_version)
        except ValueError as error:
            return self._named(scope, errors.unreadable(str(error)))
        path = scope.path
        if path == "*" and scope.method == "OPTIONS":
            return empty_response(204)
        given = read_request_id(scope.headers, self._services.trace_id)
        token = request_id.set(given)
        try:
            response = await self._route(path, scope, protocol, exchange)
        finally:
            request_id.reset(token)
        if exchange.route == REDIRECT_ROUTE and scope.method == "GET" and not response.is_visit:
            # No link can have this slug, so it is counted without it.
            domain = self._domains.at(host_of(scope))
            self._note(scope, self._visited(scope, path) or domain.key(""), "", response)
        if path.startswith(_API):
            return with_request_id(response, given)
        return self._negotiated(scope, response) if exchange.route in _FOR_PEOPLE else response

    async def _route(self, path: str, scope: RsgiScope, protocol: Any, exchange: Exchange) -> Response:
        found = self._table.find(path) or self._visit(scope, path)
        if found is None:
            host = host_of(scope)
            has_page = scope.method in _READS and self._domains.page(self._domains.at(host), 404) is not None
            if not has_page or path.startswith(_API):
                return errors.not_found()
            return self._services.redirects.unknown(host, self._client(scope))
        exchange.route, methods, path_params = found
        endpoint = methods.get("GET" if scope.method == "HEAD" else scope.method)
        if endpoint is None:
            return _allowed_methods(scope.method, methods)
        response = await self._handle(endpoint, path_params, scope, protocol)
        # What its handler has answered is in its dialect already; the bridge's own refusals are not.
        return response if endpoint.dialect is None else endpoint.dialect.problem(response, None)

    async def _handle(
        self, endpoint: Endpoint, path_params: Mapping[str, str], scope: RsgiScope, protocol: Any
    ) -> Response:
        operation = endpoint.operation
        if operation is not None and self._refuses(operation.work):
            # Before the request is read: that would cost three times as much as the refusal.
            self._services.on_error(_OVERLOADED)
            return errors.overloaded()
        headers = scope.headers
        large: LargeBody | None = None
        if operation is not None and operation.upload is not None and not is_small(headers):
            large = LargeBody(headers, protocol, operation.upload)
        shows_its_end = endpoint.dialect is not None and endpoint.dialect.takes_chunks
        body: bytes | Response = b""
        if scope.method not in _READS and not large:
            body = await read_body(headers, protocol, shows_its_end=shows_its_end)
        if isinstance(body, Response):
            return body
        try:
            query_string = scope.query_string
            query = parse_query(query_string)
            named = {"host": host_of(scope) or ""} if scope.authority else {}
            request = Request(
                method=scope.method,
                path_params=path_params,
                query_string=query_string,
                query=query.values,
                repeated=query.repeated,
                headers={
                    **fields.read(headers, self._table.headers, lists=self._table.list_headers),
                    **named,
                },
                body=body,
                client=self._client(scope),
                intent=lambda: intent_of(headers),
                wants_page=lambda: wants_page(headers),
                is_local=lambda: is_local(scope.client, headers),
                lines=headers.get_all,
                large=large,
            )
        except ValueError as error:
            return errors.unreadable(str(error))
        try:
            response = await endpoint.handle(request)
            check_headers(response.headers)
        except Exception as error:  # noqa: BLE001 - the last resort: the client gets a response
            return self.failed(f"{scope.method} {scope.path}", error)
        if large is not None and not large.is_read and response.stream is None:
            return closing(response)
        return response

    def failed(self, what: str, error: Exception) -> Response:
        """Return the answer to *what* failed with *error*, a bug, and log it."""
        self._services.on_error(error)
        trace_id = failure_id(self._services.trace_id)
        log.error("unexpected failure of %s, trace id %s", ascii(what[:200]), trace_id, exc_info=error)
        return errors.server_error(trace_id)

    def _client(self, scope: RsgiScope) -> str:
        """
        Return the client's address.

        Raises:
            ValueError: a trusted proxy may have sent it in a header that cannot be read.
        """
        peer = peer_address(scope.client)
        if not self._trusted:
            return peer
        forwarded_for = scope.headers.get_all("x-forwarded-for")
        if not forwarded_for:
            # Granian drops an unreadable value with what the proxy appended to it: without this check
            # the proxy itself would pass for the client.
            fields.require_readable(scope.headers, "x-forwarded-for")
        return client_address(peer, forwarded_for, self._trusted)


def layered(*layers: type[RsgiApplication]) -> type[RsgiApplication]:
    """Return the bridge inside these *layers*, the outermost first."""
    if len(layers) > 1:
        return type("Layered", layers, {})
    return layers[0] if layers else RsgiApplication


def _allowed_methods(method: str, methods: Mapping[str, Endpoint]) -> Response:
    """Return the methods of a path, for a *method* that it has no endpoint for."""
    allow = ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}))
    is_question = method == "OPTIONS"
    return empty_response(204, [("allow", allow)]) if is_question else errors.method_not_allowed(allow)


def _send(protocol: Any, exchange: Exchange, response: Response) -> None:
    exchange.status = response.status
    if not response.body or exchange.method == "HEAD":
        protocol.response_empty(response.status, response.headers)
    else:
        protocol.response_bytes(response.status, response.headers, response.body)


async def _send_any(protocol: Any, exchange: Exchange, response: Response) -> None:
    """Send *response*, also one that comes in parts; a client that is gone ends it."""
    parts = response.stream
    if parts is None:
        _send(protocol, exchange, response)
        return
    exchange.status = response.status
    transport = protocol.response_stream(response.status, response.headers)
    async with aclosing(parts):
        async for part in parts:
            try:
                await transport.send_bytes(part)
            except Exception as error:  # noqa: BLE001 - granian's errors have no common class
                log.info("the client of a stream is gone: %s", type(error).__name__)
                return
