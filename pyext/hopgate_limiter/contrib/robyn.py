"""
Limits for Robyn.

    limits = RateLimits("100/min", routes={"POST /login": "5/min", "/users/{id}": "20/s"})
    limits.install(app)

    @app.get("/search")
    @limits.limit("10/min")
    async def search(request: Request): ...

Limits of paths take the place of the default; those of handlers come on top of both. Robyn authenticates in
between: only the key of a handler's limit knows the user.
"""

from __future__ import annotations

import inspect
import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

from hopgate_limiter import Decision, Limiter
from hopgate_limiter.contrib import _limits
from hopgate_limiter.contrib._answers import Answer, problem
from hopgate_limiter.contrib._call import Call
from hopgate_limiter.contrib._handlers import with_request
from hopgate_limiter.contrib._keys import KeyOf, by_address, by_header, by_user
from hopgate_limiter.contrib._limits import Charges, CostOf, Rates
from robyn import Headers, Request, Response, Robyn

__all__ = ["Answer", "RateLimits", "by_address", "by_header", "by_user", "problem"]

_Handler = TypeVar("_Handler", bound=Callable[..., Any])

_NAMES = frozenset({"r", "req", "request"})
"""Parameters of these names are the request."""


class RobynCall(Call):
    """A request of Robyn."""

    __slots__ = ()

    @property
    def method(self) -> str:
        method: str = self.native.method
        return method

    @property
    def path(self) -> str:
        path: str = self.native.url.path
        return path

    @property
    def peer(self) -> str | None:
        # Robyn gives the address of the connection, whatever the headers say.
        return self.native.ip_addr or None

    @property
    def user(self) -> str | int | None:
        identity = self.native.identity
        claims = identity.claims if identity is not None else {}
        return claims.get("sub") or claims.get("user") or None

    def header_lines(self, name: str) -> Sequence[str]:
        return self.native.headers.get_all(name) or ()


class RateLimits(_limits.RateLimits):
    """The limits of a Robyn application."""

    _carrier: str | None = None

    def install(self, app: Robyn) -> None:
        """Give *app* the default rates, those of paths, and the headers of these."""
        # What is charged and announced travels with the request, under a name that no client knows.
        carrier = self._carrier = self._carrier or f"hopgate-limiter-{secrets.token_hex(8)}"

        async def before(request: Request) -> Any:
            limit = self.rule(request.method, request.url.path)
            if limit is None:
                return request
            call, charges = RobynCall(request, self.trusted), Charges(self)
            refusal = await self.check_async(limit, "*", call, charges)
            if refusal is not None:
                return self._answered(call, refusal, charges)
            made = [[key, cost] for _, key, cost in charges.made]
            request.headers.set(carrier, json.dumps([made, self.headers(charges, 200)]))
            return request

        async def after(request: Request, response: Any) -> Any:
            carried = request.headers.get(carrier)
            if carried:
                _add(response.headers, json.loads(carried)[1])
            return response

        app.before_request()(before)
        app.after_request()(after)

    def limit(
        self,
        *rates: Rates,
        name: str | None = None,
        key: KeyOf | None = None,
        cost: CostOf | None = None,
        shadow: bool | None = None,
    ) -> Callable[[_Handler], _Handler]:
        """
        Return a decorator for a handler, plain or async; routes stand above it.

        The arguments are those of `make_limit`. A handler counts for itself; handlers of one *name* count
        together. An admitted request gets headers if its handler returns a `Response`; rates of `routes` are
        announced always.
        """
        limit = self.make_limit(*rates, name=name, key=key, cost=cost, shadow=shadow)

        def decorate(handler: _Handler) -> _Handler:
            label = f"{handler.__module__}.{handler.__qualname__}"
            signature, own, adds = with_request(handler, Request, _NAMES, "request")

            if inspect.iscoroutinefunction(handler):

                @wraps(handler)
                async def limited_async(**values: Any) -> Any:
                    request = values.pop(own) if adds else values[own]
                    call, charges = RobynCall(request, self.trusted), Charges(self)
                    refusal = await self.check_async(limit, label, call, charges)
                    if refusal is not None:
                        for limiter, charged, units in self._carried(call):
                            with suppress(ConnectionError):
                                await limiter.refund_async(charged, units)
                        return self._answered(call, refusal, charges)
                    return self._announced(await handler(**values), charges)

                limited_async.__signature__ = signature  # type: ignore[attr-defined]
                return cast("_Handler", limited_async)

            @wraps(handler)
            def limited(**values: Any) -> Any:
                request = values.pop(own) if adds else values[own]
                call, charges = RobynCall(request, self.trusted), Charges(self)
                refusal = self.check(limit, label, call, charges)
                if refusal is not None:
                    for limiter, charged, units in self._carried(call):
                        with suppress(ConnectionError):
                            limiter.refund(charged, units)
                    return self._answered(call, refusal, charges)
                return self._announced(handler(**values), charges)

            limited.__signature__ = signature  # type: ignore[attr-defined]
            return cast("_Handler", limited)

        return decorate

    def _carried(self, call: RobynCall) -> list[tuple[Limiter, str, int]]:
        """Return what the path of a request was charged, to give it back: its handler refuses."""
        carried = call.header(self._carrier) if self._carrier else None
        limit = self.rule(call.method, call.path)
        if not carried or limit is None:
            return []
        return [(limit.limiter, key, cost) for key, cost in json.loads(carried)[0]]

    def _announced(self, response: Any, charges: Charges) -> Any:
        if isinstance(response, Response):
            _add(response.headers, self.headers(charges, response.status_code))
        return response

    def _answered(self, call: RobynCall, refusal: Decision, charges: Charges) -> Any:
        answer = self.answer(call, refusal)
        if isinstance(answer, Answer):
            answer = Response(answer.status, Headers(dict(answer.headers)), answer.body)
        if isinstance(answer, Response):
            _add(answer.headers, self.headers(charges, answer.status_code))
        return answer


def _add(headers: Any, added: dict[str, str]) -> None:
    for name, value in added.items():
        if headers.get(name) is None:
            headers.set(name, value)
