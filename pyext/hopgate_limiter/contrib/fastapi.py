"""
Limits for FastAPI.

    limits = RateLimits("100/min")
    app = FastAPI()
    limits.install(app)  # before its routes

    @app.get("/search")
    @limits.limit("10/min")  # or: @app.get("/search", dependencies=[limits.limit("10/min")])
    async def search() -> ...:

A limit of a route takes the place of the default. Starlette without FastAPI has no dependencies: give
`hopgate_limiter.contrib.asgi.RateLimitMiddleware` to the application, a Mount or a Route.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from fastapi import Depends, FastAPI, HTTPException, Request, Response, params
from fastapi.routing import APIRoute
from hopgate_limiter import Decision
from hopgate_limiter.contrib import _arguments, _limits
from hopgate_limiter.contrib._answers import Answer, detail, problem
from hopgate_limiter.contrib._call import CHARGES
from hopgate_limiter.contrib._handlers import with_request
from hopgate_limiter.contrib._keys import KeyOf, by_address, by_header, by_user
from hopgate_limiter.contrib._limits import MARK, Charges, CostOf, Limit, Rates
from hopgate_limiter.contrib.asgi import AsgiCall, HeadersMiddleware, path_in
from starlette.requests import HTTPConnection

__all__ = ["Answer", "Limited", "RateLimits", "Refused", "by_address", "by_header", "by_user", "problem"]

_View = TypeVar("_View", bound=Callable[..., Any])

# What FastAPI otherwise finds out at each request, though it matters for generators alone. Since 0.121.
_SCOPE: dict[str, Any] = (
    {"scope": "request"} if "scope" in inspect.signature(params.Depends).parameters else {}
)


# A server may take the root path from a client's header: labels are kept for this many.
_MAX_LABELS = 1024


class Refused(HTTPException):
    """A request beyond a limit. Without `RateLimits.install` FastAPI answers with a sentence and headers."""

    def __init__(self, decision: Decision, answer: Any, headers: dict[str, str]) -> None:
        """Keep the decision and the answer to it; *headers* are those of an answer by FastAPI."""
        # A sentence alone is a problem document, too.
        problem_headers = {"Content-Type": "application/problem+json", **headers}
        super().__init__(429, detail(decision), problem_headers)
        self.decision = decision
        self.answer = answer


class RateLimits(_limits.RateLimits):
    """The limits of FastAPI applications."""

    def install(self, app: FastAPI) -> None:
        """
        Give *app* the default rates, the headers of all responses, and the answers to refused requests.

        Only routes that are added later get the default. Paths without a route and mounted applications get
        none: `RateLimitMiddleware` of `hopgate_limiter.contrib.asgi` counts them, too.

        Raises:
            ValueError: there are routes already.
        """
        _arguments.of_type("app", "FastAPI", app, FastAPI)
        if any(isinstance(route, APIRoute) for route in app.router.routes):
            raise ValueError("install must come before the routes of the application")
        if self.has_rules:  # each dependency costs about as much as a decision
            app.router.dependencies.append(Depends(_Default(self), **_SCOPE))
        app.add_exception_handler(Refused, _answered)
        app.add_middleware(HeadersMiddleware, limits=self)

    def limit(
        self,
        *rates: Rates,
        name: str | None = None,
        key: KeyOf | None = None,
        cost: CostOf | None = None,
        shadow: bool | None = None,
    ) -> Limited:
        """
        Return a limit, to decorate an endpoint with or to depend on.

        The arguments are those of `make_limit`. Each route counts for itself; those of one *name* count
        together.
        """
        own = _Own(self, self.make_limit(*rates, name=name, key=key, cost=cost, shadow=shadow))
        return Limited(own, **_SCOPE)

    def exempt(self, endpoint: _View) -> _View:
        """Mark an endpoint as one without the default rates; `@app.get` stands above."""
        setattr(endpoint, MARK, (*getattr(endpoint, MARK, ()), self))
        return endpoint


class Limited(params.Depends):
    """
    A limit of routes, made by `RateLimits.limit`.

    Below `@app.get` it decorates an endpoint, plain or async: the cheapest. In `dependencies` it limits a
    route or all routes of a router; a request that meets it twice is charged once. As a parameter it is the
    decision, or None.
    """

    def __call__(self, endpoint: _View) -> _View:
        """
        Return the endpoint with this limit; FastAPI sees the same parameters.

        Raises:
            TypeError: a generator, whose first value is asked for after the headers are sent: depend instead.
        """
        own = self.dependency
        assert isinstance(own, _Own)  # noqa: S101 - the only way to make it
        return own.decorated(endpoint)


class _Own:
    """The dependency that a limit of a route is."""

    def __init__(self, limits: RateLimits, limit: Limit) -> None:
        self.limits = limits
        self.limit = limit
        self._labels = _Labels()

    async def __call__(self, request: HTTPConnection, response: Response) -> Decision | None:
        scope = request.scope
        if scope["type"] != "http":
            return None
        # Not by a coroutine of its own: each costs as much as a decision.
        limits, limit = self.limits, self.limit
        call, charges = _begin(limits, scope)
        if limit.is_shared:
            refusal = await limits.check_async(limit, self._labels.of(scope), call, charges)
        else:
            refusal = limits.check(limit, self._labels.of(scope), call, charges)
        if refusal is not None:
            raise _refused(limits, call, refusal, charges)
        if charges.writer is None:
            _write_headers(limits, charges, response)
        return charges.decision

    def decorated(self, endpoint: _View) -> _View:
        if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
            raise TypeError(f"{endpoint.__name__} is a generator: its route must depend on the limit")
        limits, limit, labels = self.limits, self.limit, self._labels
        signature, name, adds = with_request(endpoint, Request)
        if inspect.iscoroutinefunction(endpoint):

            @wraps(endpoint)
            async def limited_async(**values: Any) -> Any:
                request = values.pop(name) if adds else values[name]
                call, charges = _begin(limits, request.scope)
                if limit.is_shared:
                    refusal = await limits.check_async(limit, labels.of(request.scope), call, charges)
                else:
                    refusal = limits.check(limit, labels.of(request.scope), call, charges)
                if refusal is not None:
                    raise _refused(limits, call, refusal, charges)
                return await endpoint(**values)

            return _marked(limited_async, endpoint, signature, limits)

        @wraps(endpoint)
        def limited(**values: Any) -> Any:
            request = values.pop(name) if adds else values[name]
            call, charges = _begin(limits, request.scope)
            refusal = limits.check(limit, labels.of(request.scope), call, charges)
            if refusal is not None:
                raise _refused(limits, call, refusal, charges)
            return endpoint(**values)

        return _marked(limited, endpoint, signature, limits)


def _marked(wrapper: Any, endpoint: _View, signature: inspect.Signature, limits: RateLimits) -> _View:
    wrapper.__signature__ = signature
    setattr(wrapper, MARK, (*getattr(endpoint, MARK, ()), limits))
    return cast("_View", wrapper)


class _Default:
    """The dependency of all routes, for those without a limit of their own."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        # By the id of what a route depends on, which the entry keeps alive.
        self._own: dict[int, tuple[Any, bool]] = {}

    async def __call__(self, request: HTTPConnection, response: Response) -> None:
        scope = request.scope
        if scope["type"] != "http" or self._has_own(scope):
            return
        limits = self.limits
        limit = limits.rule(scope["method"], path_in(scope))
        if limit is None:
            return
        call, charges = _begin(limits, scope)
        if limit.is_shared:
            refusal = await limits.check_async(limit, "*", call, charges)
        else:
            refusal = limits.check(limit, "*", call, charges)
        if refusal is not None:
            raise _refused(limits, call, refusal, charges)
        if charges.writer is None:
            _write_headers(limits, charges, response)

    def _has_own(self, scope: Any) -> bool:
        if self.limits in getattr(scope.get("endpoint"), MARK, ()):
            return True
        dependant = getattr(_route(scope), "dependant", None)
        if dependant is None:
            return False
        known = self._own.get(id(dependant))
        if known is None:
            known = self._own[id(dependant)] = (dependant, _depends_on(dependant, self.limits))
        return known[1]


def _write_headers(limits: RateLimits, charges: Charges, response: Response) -> None:
    """Write what no middleware does."""
    for name, value in limits.headers(charges, 200).items():
        response.headers[name] = value


def _begin(limits: RateLimits, scope: Any) -> tuple[AsgiCall, Charges]:
    charges: Charges | None = scope.get(CHARGES)
    if charges is None:
        charges = scope[CHARGES] = Charges()
    return AsgiCall(scope, limits.trusted), charges


def _refused(limits: RateLimits, call: AsgiCall, refusal: Decision, charges: Charges) -> Refused:
    return Refused(refusal, limits.answer(call, refusal), limits.headers(charges, 429))


async def _answered(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)  # noqa: S101 - registered for it alone
    answer = refused.answer
    if isinstance(answer, Answer):
        return Response(answer.body, answer.status, dict(answer.headers))
    response: Response = answer
    return response


# --- the route of a request ---------------------------------------------------------------


def _route(scope: Any) -> Any:
    """Return the route as the application sees it: with the prefixes of the routers that include it."""
    included = scope.get("fastapi")
    effective = included.get("effective_route_context") if isinstance(included, dict) else None
    return effective if effective is not None else scope.get("route")


class _Labels:
    """Names of the routes that have a limit, made once for each route and mount point."""

    __slots__ = ("_known", "_last")

    def __init__(self) -> None:
        # Most limits have one route.
        self._last: tuple[Any, str, str] = (None, "", "")
        # By the id of a route, which the entry keeps alive.
        self._known: dict[tuple[int, str], tuple[Any, str]] = {}

    def of(self, scope: Any) -> str:
        included = scope.get("fastapi")
        route = _route(scope) if included is not None else scope.get("route")
        root = scope.get("root_path", "")
        if route is None:
            return _label(scope)
        last_route, last_root, label = self._last
        if route is last_route and root == last_root:
            return label
        known = self._known.get((id(route), root))
        if known is None:
            if len(self._known) >= _MAX_LABELS:
                self._known.clear()
            known = self._known[id(route), root] = route, _label(scope)
        self._last = route, root, known[1]
        return known[1]


def _label(scope: Any) -> str:
    route = _route(scope)
    methods = getattr(route, "methods", None)
    path = getattr(route, "path", None) or getattr(scope.get("endpoint"), "__qualname__", "*")
    if not methods:
        return f"{scope.get('root_path', '')}{path}"
    only = next(iter(methods)) if len(methods) == 1 else ",".join(sorted(methods))
    return f"{only} {scope.get('root_path', '')}{path}"


def _depends_on(dependant: Any, limits: RateLimits) -> bool:
    for child in dependant.dependencies:
        call = child.call
        if (isinstance(call, _Own) and call.limits is limits) or _depends_on(child, limits):
            return True
    return False
