"""
The only importer of Robyn: makes its application and routers, and reads them for the bridge.

Handlers are declared with Robyn's decorators and take and return this package's own `Request` and
`Response`. Each carries its `Endpoint`, which `app.web.rsgi` calls directly. Robyn 0.88's own server
calls the same handlers through one conversion each way; it ignores SIGTERM and has no 405, no HEAD
and no time limits, so it serves only for comparison.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlencode

from app.web.endpoint import Endpoint, Route
from app.web.request import Request, query_of
from app.web.response import Response

# robyn.Request → robyn.Response, which are known only once Robyn is imported.
RobynHandler = Callable[[Any], Awaitable[Any]]
_Decorator = Callable[[RobynHandler], object]


class Router(Protocol):
    """What `robyn.Robyn` and `robyn.SubRouter` have in common, typed."""

    def get(self, endpoint: str) -> _Decorator:
        """Declare a handler of GET."""

    def post(self, endpoint: str) -> _Decorator:
        """Declare a handler of POST."""

    def put(self, endpoint: str) -> _Decorator:
        """Declare a handler of PUT."""

    def patch(self, endpoint: str) -> _Decorator:
        """Declare a handler of PATCH."""

    def delete(self, endpoint: str) -> _Decorator:
        """Declare a handler of DELETE."""


def new_application() -> Any:
    """Return an empty `robyn.Robyn` that takes nothing from the command line or the environment."""
    with _isolated("--disable-openapi", "--log-level", "WARN"):
        return _robyn().Robyn(__file__, config=_config())


def new_router(prefix: str) -> Router:
    """Return an empty `robyn.SubRouter` for the paths below *prefix*."""
    with _isolated("--disable-openapi", "--log-level", "WARN"):
        router: Router = _robyn().SubRouter(prefix=prefix, config=_config())
    return router


def public(handle: Callable[[Request], Awaitable[Response]]) -> RobynHandler:
    """Declare *handle* as the handler of a public endpoint; goes below a decorator of Robyn."""
    return for_robyn(Endpoint(handle.__name__, handle))


def keyed(handle: Callable[[Request], Awaitable[Response]]) -> RobynHandler:
    """Declare *handle* as `public` does; it asks for a key itself."""
    return for_robyn(Endpoint(handle.__name__, handle, reads=frozenset({"authorization"})))


def of_host(handle: Callable[[Request], Awaitable[Response]]) -> RobynHandler:
    """Declare *handle* as `public` does; what it answers depends on the host."""
    return for_robyn(Endpoint(handle.__name__, handle, reads=frozenset({"host"})))


def of_visit(handle: Callable[[Request], Awaitable[Response]]) -> RobynHandler:
    """Declare *handle* as `of_host` does; the client may hold what it answers."""
    return for_robyn(Endpoint(handle.__name__, handle, reads=frozenset({"host", "if-none-match"})))


def for_robyn(endpoint: Endpoint) -> RobynHandler:
    """Return *endpoint* as a handler of Robyn's own server, which carries it for `routes_of`."""

    # Robyn finds the source of an argument by its name, or by its annotation, which must not be text.
    async def handler(request):  # type: ignore[no-untyped-def]
        return _to_robyn(await endpoint.handle(_from_robyn(endpoint, request)))

    handler.__name__ = endpoint.name
    handler.endpoint = endpoint  # type: ignore[attr-defined]
    return handler


def routes_of(application: Any) -> Sequence[Route]:
    """
    Return every HTTP route of a Robyn *application*.

    Raises:
        TypeError: a handler is declared without an endpoint: see `public` and `ApiMiddleware`.
    """
    routes = []
    for route in application.router.get_routes():
        endpoint = getattr(route.function.handler, "endpoint", None)
        if not isinstance(endpoint, Endpoint):
            message = f"the handler of {route.route} declares no endpoint"
            raise TypeError(message)
        routes.append(Route(str(route.route_type).rpartition(".")[2], route.route, endpoint))
    return routes


def _from_robyn(endpoint: Endpoint, request: Any) -> Request:
    # Each attribute of Robyn's request is a copy out of Rust.
    is_public = endpoint.operation is None
    values = {name: request.headers.get(name) for name in endpoint.headers}
    body = b"" if is_public else request.body
    pairs = request.query_params.multi_items()
    query = query_of(pairs)
    return Request(
        method=request.method,
        path_params=request.path_params,
        query_string=urlencode(pairs),
        query=query.values,
        repeated=query.repeated,
        headers={name: value for name, value in values.items() if value is not None},
        body=body.encode() if isinstance(body, str) else bytes(body),
        client=request.ip_addr or "",
    )


def _to_robyn(response: Response) -> Any:
    robyn = _robyn()
    headers = robyn.Headers({})
    for name, value in response.headers:
        headers.append(name, value)
    return robyn.Response(response.status, headers, response.body)


@functools.cache
def _robyn() -> ModuleType:
    """Import Robyn, which reads `sys.argv` while it is imported and exits on `--help`."""
    with _isolated():
        import robyn
    logging.getLogger("robyn").setLevel(logging.WARNING)
    return robyn


def _config() -> Any:
    return sys.modules["robyn.argument_parser"].Config()


@contextmanager
def _isolated(*arguments: str) -> Iterator[None]:
    """
    Give Robyn *arguments* in place of the command line, and keep it from the rest of the process.

    Without ROBYN_CLI its constructors read a `robyn.env` from around the working directory; without a
    handler they configure logging for the whole process.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    argv, sys.argv = sys.argv, [sys.argv[0], *arguments]
    is_set = "ROBYN_CLI" in os.environ
    os.environ.setdefault("ROBYN_CLI", "True")
    try:
        yield
    finally:
        sys.argv = argv
        if not is_set:
            del os.environ["ROBYN_CLI"]
