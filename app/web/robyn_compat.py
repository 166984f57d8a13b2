"""
The only importer of Robyn: making the application, and reading from it what a bridge needs.

Robyn 0.88 is its own server, which ignores SIGTERM and has no 405, no HEAD and no time
limits. Its application object is a fine place to declare handlers all the same: this module
takes them back out, unwrapped, with their arguments decided once instead of per request.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from app.web.answer import Answer

Handler = Callable[..., Any]
# robyn.Request and the raw query string → answer.
Endpoint = Callable[[Any, str], Awaitable[Answer]]
_Source = Callable[[Any, str], Any]

_MAX_QUERY_FIELDS = 100
# What Robyn's own router hands to a parameter of this name.
_COMPONENTS = ("query_params", "headers", "path_params", "body", "method", "url", "ip_addr", "identity")
_REQUEST_NAMES = {"r", "req", "request"}


class Route(NamedTuple):
    """One handler of a Robyn application. `path` as declared: `/api/v1/links/:slug`."""

    method: str
    path: str
    endpoint: Endpoint


@functools.cache
def _robyn() -> ModuleType:
    """Import Robyn, which reads `sys.argv` while it is imported and exits on `--help`."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    # Robyn's constructor would otherwise configure logging for the whole process.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        import robyn
    finally:
        sys.argv = argv
    logging.getLogger("robyn").setLevel(logging.WARNING)
    return robyn


def new_application() -> Any:
    """Return an empty `robyn.Robyn` that takes nothing from the command line."""
    robyn = _robyn()
    argv, sys.argv = sys.argv, [sys.argv[0], "--disable-openapi", "--log-level", "WARN"]
    try:
        config = sys.modules["robyn.argument_parser"].Config()
    finally:
        sys.argv = argv
    return robyn.Robyn(__file__, config=config)


def routes_of(application: Any) -> Sequence[Route]:
    """
    Return every HTTP route of a Robyn *application*.

    Raises:
        TypeError: a handler wants an argument that cannot be supplied.
    """
    return [
        Route(
            str(route.route_type).rpartition(".")[2],
            route.route,
            _endpoint(inspect.unwrap(route.function.handler), _parameters(route.route)),
        )
        for route in application.router.get_routes()
    ]


def new_request(
    *,
    method: str,
    path: str,
    path_params: Mapping[str, str],
    query: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    scheme: str,
    host: str,
    client: str,
) -> Any:
    """
    Return a real `robyn.Request`.

    Raises:
        ValueError: the query string has too many fields.
    """
    robyn = sys.modules["robyn.robyn"]
    query_params = robyn.QueryParams()
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS):
        query_params.set(name, value)
    carried = robyn.Headers({})
    for name, value in headers:
        carried.append(name, value)
    url = robyn.Url(scheme, host, path)
    return robyn.Request(query_params, carried, dict(path_params), body, method, url, {}, {}, None, client)


def to_response(answer: Answer) -> Any:
    """Return *answer* as a `robyn.Response`: what handlers return, on any server."""
    robyn = _robyn()
    headers = robyn.Headers({})
    for name, value in answer.headers:
        headers.append(name, value)
    return robyn.Response(answer.status, headers, answer.body)


def _parameters(path: str) -> frozenset[str]:
    return frozenset(part[1:] for part in path.split("/") if part.startswith(":"))


def _endpoint(handler: Handler, path_parameters: frozenset[str]) -> Endpoint:
    """Decide once where each argument of *handler* comes from."""
    sources = {
        name: _source(handler, parameter, path_parameters)
        for name, parameter in inspect.signature(handler).parameters.items()
    }
    is_async = inspect.iscoroutinefunction(handler)

    async def endpoint(request: Any, query: str) -> Answer:
        result = handler(**{name: source(request, query) for name, source in sources.items()})
        return _to_answer(await result if is_async else result)

    return endpoint


def _source(handler: Handler, parameter: inspect.Parameter, path_parameters: frozenset[str]) -> _Source:
    name, annotation = parameter.name, parameter.annotation
    robyn = _robyn()
    if annotation is robyn.Request or name in _REQUEST_NAMES:
        return lambda request, _: request
    if name in _COMPONENTS:
        return lambda request, _: getattr(request, name)
    if name in path_parameters:
        return lambda request, _: request.path_params[name]
    if name == "query_string":
        return lambda _, query: query
    message = f"{handler.__qualname__}: no source for the argument {name!r}"
    raise TypeError(message)


def _to_answer(result: Any) -> Answer:
    """Read what a handler returned as Robyn would; a dictionary or list is JSON."""
    robyn = sys.modules["robyn.robyn"]
    if isinstance(result, robyn.Response):
        body = result.description
        headers = [(name.lower(), value) for name, value in result.headers.multi_items()]
        return Answer(result.status_code, headers, body.encode() if isinstance(body, str) else bytes(body))
    if isinstance(result, str | bytes):
        body = result.encode() if isinstance(result, str) else result
        return Answer(200, [("content-type", "text/plain; charset=utf-8")], body)
    if isinstance(result, dict | list):
        return Answer(200, [("content-type", "application/json")], msgspec.json.encode(result))
    message = f"a handler returned {type(result).__name__}, not a response"
    raise TypeError(message)
