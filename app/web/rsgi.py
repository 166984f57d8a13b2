"""
The bridge: granian speaks RSGI, the handlers are a Robyn application's.

For every request it decides, in this order: the redirect lane, a route, 405, 404. It owns
what neither side provides: the limit on bodies and on the time they take, HEAD and OPTIONS,
header sanity, and the last resort when a handler fails.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, NamedTuple, Protocol

from app.domain import slug as slugs
from app.resilience.deadline import BODY_S
from app.web import errors
from app.web.answer import Answer, check_headers
from app.web.client import client_address, peer_address
from app.web.redirect import with_query
from app.web.robyn_compat import Endpoint, Route, new_application, new_request, routes_of
from app.web.routes import READ_HEADERS, register
from app.web.services import Services

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
_READS = ("GET", "HEAD")
# What a visitor is told who guesses slugs, or who visits too often.
_SLOWED = (404, 429)


class Scope(Protocol):
    """A request as RSGI 1.6 describes it."""

    scheme: str
    method: str
    path: str
    query_string: str
    client: str
    authority: str | None
    headers: Any


class RouteTable:
    """Paths to the methods they know: literal paths first, then those with parameters."""

    def __init__(self, routes: list[Route]) -> None:
        self._literal: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[tuple[str, ...], dict[str, Endpoint]] = {}
        for route in routes:
            parts = tuple(route.path.split("/")[1:])
            if any(part.startswith(":") for part in parts):
                self._patterns.setdefault(parts, {})[route.method] = route.endpoint
            else:
                self._literal.setdefault(route.path, {})[route.method] = route.endpoint

    def is_literal(self, path: str) -> bool:
        """Does a route without parameters own *path*?"""
        return path in self._literal

    def find(self, path: str) -> tuple[dict[str, Endpoint], Mapping[str, str]] | None:
        """Return the methods that *path* knows, and its path parameters."""
        methods = self._literal.get(path)
        if methods is not None:
            return methods, {}
        parts = path.split("/")[1:]
        for pattern, methods in self._patterns.items():
            if len(pattern) == len(parts):
                pairs = list(zip(pattern, parts, strict=True))
                if all(part and (name == part or name.startswith(":")) for name, part in pairs):
                    return methods, {name[1:]: part for name, part in pairs if name.startswith(":")}
        return None


class _Body(NamedTuple):
    content: bytes
    refusal: Answer | None


class RsgiApplication:
    """
    What granian serves, without websockets.

    Args:
        open_services: opened in each worker before its first request, closed after its last.
        with_lane: False sends redirects through the Robyn handler as well, for tests and
            measurements.
    """

    def __init__(
        self, open_services: Callable[[], AbstractAsyncContextManager[Services]], *, with_lane: bool = True
    ) -> None:
        self._open_services = open_services
        self._with_lane = with_lane
        self._opened = AsyncExitStack()
        self._services: Services

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open everything; granian calls this in the worker, before the loop runs."""
        loop.run_until_complete(self._open())
        # Modules, routes and connections stay as long as the process: looking through them for
        # cycles again and again would hold up every request under way.
        gc.collect()
        gc.freeze()
        # `hopgate serve` blocks it from before the fork: until the loop runs, it would be lost.
        loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGTERM})

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close everything; granian calls this when the last request is answered."""
        loop.run_until_complete(self._opened.aclose())

    async def _open(self) -> None:
        self._services = services = await self._opened.enter_async_context(self._open_services())
        application = new_application()
        kinds = register(application, services)
        routes = list(routes_of(application))
        self._table = RouteTable(routes)
        self._kinds = {route.endpoint: kinds.get((route.method, route.path)) for route in routes}
        self._refuses = services.entrance.refuses
        self._answer_hot = services.lane.answer_hot
        self._trusted = services.trusted_proxies
        self._tarpit = services.tarpit

    async def __rsgi__(self, scope: Scope, protocol: Any) -> None:
        """Answer one HTTP request. Every attribute of *scope* is a call into Rust: read what is needed."""
        method = scope.method
        if (method == "GET" or method == "HEAD") and self._with_lane:  # noqa: PLR1714 - half the time of a set
            path = scope.path
            slug = path[1:]
            try:
                client = self._client(scope) if self._trusted else peer_address(scope.client)
            except ValueError as error:
                _send(protocol, method, errors.unreadable(str(error)))
                return
            is_head = method == "HEAD"
            answer = None if is_head else self._answer_hot(slug, client)
            if answer is None and slugs.is_well_formed(slug) and not self._table.is_literal(path):
                answer = await self._look_up(slug, client, is_head=is_head)
            if answer is not None:
                if answer.forward_query:
                    answer = with_query(answer, scope.query_string)
                if answer.body:
                    if answer.status in _SLOWED:
                        await self._tarpit.hold()
                    _send(protocol, method, answer)
                else:
                    protocol.response_empty(answer.status, answer.headers)
                return
        _send(protocol, method, await self._dispatch(scope, protocol))

    async def _look_up(self, slug: str, client: str, *, is_head: bool) -> Answer:
        try:
            return await self._services.lane.answer(slug, client, is_head=is_head)
        except Exception as error:  # noqa: BLE001 - the last resort: the client gets an answer
            return self._failed("GET /{slug}", error)

    async def _dispatch(self, scope: Scope, protocol: Any) -> Answer:
        found = self._table.find(scope.path)
        if found is None:
            return errors.not_found()
        methods, path_params = found
        endpoint = methods.get("GET" if scope.method == "HEAD" else scope.method)
        if endpoint is None:
            return _told_methods(scope.method, methods)
        return await self._handle(endpoint, path_params, scope, protocol)

    async def _handle(
        self, endpoint: Endpoint, path_params: Mapping[str, str], scope: Scope, protocol: Any
    ) -> Answer:
        kind = self._kinds[endpoint]
        if kind is not None and self._refuses(kind):
            # Reading the request would cost three times as much as the answer.
            return errors.overloaded()
        body = await _read_body(scope, protocol)
        if body.refusal is not None:
            return body.refusal
        try:
            request = new_request(
                method=scope.method,
                path=scope.path,
                path_params=path_params,
                query=scope.query_string,
                headers=_readable(scope.headers).items(),
                body=body.content,
                scheme=scope.scheme,
                host=scope.authority or scope.headers.get("host", ""),
                client=self._client(scope),
            )
        except ValueError as error:
            return errors.unreadable(str(error))
        try:
            answer = await endpoint(request, scope.query_string)
            check_headers(answer.headers)
        except Exception as error:  # noqa: BLE001 - the last resort: the client gets an answer
            return self._failed(f"{scope.method} {scope.path}", error)
        return answer

    def _failed(self, what: str, error: Exception) -> Answer:
        trace_id = self._services.trace_id()
        log.error("unexpected failure of %s, trace id %s", ascii(what[:200]), trace_id, exc_info=error)
        return errors.server_error(trace_id)

    def _client(self, scope: Scope) -> str:
        """Return who asks. Raises ValueError if a proxy may have said so and it cannot be read."""
        peer = peer_address(scope.client)
        if not self._trusted:
            return peer
        forwarded_for = scope.headers.get_all("x-forwarded-for")
        if not forwarded_for:
            # What a proxy appends to a value that cannot be read is lost, and its client is not the proxy.
            _require_readable(scope.headers, "x-forwarded-for")
        return client_address(peer, forwarded_for, self._trusted)


def _readable(headers: Any) -> Any:
    """
    Return *headers*, which granian gives without the values that are not visible ASCII.

    Raises:
        ValueError: a handler would take one of them for missing.
    """
    for name in READ_HEADERS:
        _require_readable(headers, name)
    return headers


def _require_readable(headers: Any, name: str) -> None:
    if name in headers and headers.get(name) is None:
        message = f"The header {name} must be visible ASCII."
        raise ValueError(message)


def _told_methods(method: str, methods: Mapping[str, Endpoint]) -> Answer:
    """Say which methods a path knows: *method* is none of them."""
    allow = ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}))
    return Answer(204, [("allow", allow)]) if method == "OPTIONS" else errors.method_not_allowed(allow)


async def _read_body(scope: Scope, protocol: Any) -> _Body:
    """Read the body, but no more and no longer than allowed."""
    if scope.method in _READS:
        return _Body(b"", None)
    declared = scope.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:12]) > MAX_BODY_BYTES:
        return _Body(b"", errors.body_too_large(MAX_BODY_BYTES))
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in protocol:
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    return _Body(b"", errors.body_too_large(MAX_BODY_BYTES))
    except TimeoutError:
        return _Body(b"", errors.body_timeout())
    return _Body(bytes(content), None)


def _send(protocol: Any, method: str, answer: Answer) -> None:
    if not answer.body or method == "HEAD":
        protocol.response_empty(answer.status, answer.headers)
    else:
        protocol.response_bytes(answer.status, answer.headers, answer.body)
