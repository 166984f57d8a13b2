"""What stands before every handler of the API, and turns its errors into problems."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, overload

from app.concurrency.actors import acting_as
from app.concurrency.time_limit import within
from app.domain.errors import FieldError, InvalidInput, Overloaded, Unavailable
from app.ports import Policy, RateLimiter
from app.resilience.admission import AdmissionController
from app.service.keys import Authenticator, Credential, Expired, Principal, Scope
from app.web import errors, i_json
from app.web import headers as fields
from app.web.endpoint import Dialect, Endpoint, Operation
from app.web.request import Request
from app.web.response import Response
from app.web.robyn_app import RobynHandler, for_robyn

B = TypeVar("B")
_SAFE = ("GET", "HEAD")
_SHORTEST_WAIT_S = 0.02


@dataclass(frozen=True, slots=True)
class Call(Generic[B]):
    """A request that was admitted, the key that sent it, and its body as the declared schema."""

    request: Request
    principal: Principal
    body: B


_Handler = Callable[[Call[B]], Awaitable[Response]]
_Decorator = Callable[[_Handler[B]], RobynHandler]


class ApiMiddleware:
    """
    Runs handlers behind admission control, authentication, rate limits and a deadline.

    In this order: admission (503), the limit of the client's address (429) unless the key is known, the
    key (401), its addresses (403), the limit of the key (429), its scope (403), the query (422), the body's
    type (415), the limit of the operation, the body (422), the handler.

    *on_error* is notified of each error that a request ends with.
    """

    def __init__(
        self,
        *,
        limiter: RateLimiter,
        authenticator: Authenticator,
        admission: AdmissionController,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._limiter = limiter
        self._on_error = on_error
        self._authenticator = authenticator
        self._admission = admission

    @overload
    def endpoint(self, operation: Operation, *, dialect: Dialect | None = None) -> _Decorator[None]: ...
    @overload
    def endpoint(self, operation: Operation, body: type[B]) -> _Decorator[B]: ...
    def endpoint(
        self, operation: Operation, body: Any = None, *, dialect: Dialect | None = None
    ) -> _Decorator[Any]:
        """
        Declare the handler of *operation*, which reads *body*; goes below a decorator of Robyn.

        A handler of a *dialect* reads query and body itself.
        """
        declared = replace(operation, body=body)

        def declare(handler: _Handler[Any]) -> RobynHandler:
            async def handle(request: Request) -> Response:
                return await self.run(declared, handler, request, dialect)

            return for_robyn(Endpoint(handler.__name__, handle, declared, dialect=dialect))

        return declare

    async def run(
        self, operation: Operation, handler: _Handler[Any], request: Request, dialect: Dialect | None = None
    ) -> Response:
        """Return what *handler* answers, or the problem in its place, as the *dialect* says it."""
        response = await self._run(operation, handler, request, dialect)
        return response if dialect is None else dialect.problem(response, request)

    async def _run(
        self, operation: Operation, handler: _Handler[Any], request: Request, dialect: Dialect | None
    ) -> Response:
        admission, kind = self._admission, operation.work
        try:
            entered = admission.enter(kind)
        except Overloaded as error:
            self._on_error(error)
            return errors.overloaded()
        succeeded = False
        try:
            response = await self._bounded(operation, handler, request, dialect)
            # How long a large body takes says nothing of the load.
            is_own_time = operation.upload is None and not operation.asks_others
            succeeded = response.status < 500 and is_own_time
        finally:
            admission.leave(kind, entered, succeeded=succeeded)
        return response

    async def _bounded(
        self, operation: Operation, handler: _Handler[Any], request: Request, dialect: Dialect | None
    ) -> Response:
        try:
            async with within(operation.deadline_s):
                return await self._admitted(operation, handler, request, dialect)
        except InvalidInput as error:
            self._on_error(error)
            return errors.invalid(error)
        except i_json.UnreadableBody as error:
            return errors.unreadable(str(error))
        except Overloaded as error:
            self._on_error(error)
            return errors.overloaded()
        except (Unavailable, TimeoutError) as error:
            self._on_error(error)
            # In a dialect a GET may write.
            is_write = request.method not in _SAFE or operation.scope is Scope.LINKS_WRITE
            return errors.unavailable(error, may_have_written=is_write)

    async def _admitted(
        self, operation: Operation, handler: _Handler[Any], request: Request, dialect: Dialect | None
    ) -> Response:
        text = bearer(request) if dialect is None else dialect.key(request)
        stale_s = operation.stale_key_s
        principal = await self.authorize(operation.scope, text, request.client, stale_s=stale_s)
        if isinstance(principal, Response):
            return principal
        if dialect is None:
            check_query(operation.query, request, lists=operation.query_lists)
        refusal = _refused_type(operation, request)
        if refusal is not None:
            return refusal
        if operation.limit is not None and not self._limiter.admit(operation.limit, principal.key_id):
            return self._refuse(operation.limit, principal.key_id)
        # A large body is read by its handler.
        is_read = operation.body is not None and operation.upload is None
        body = i_json.read(request.body, operation.body) if is_read and operation.body else None
        with acting_as(principal.key_id, principal.reach):
            return await handler(Call(request, principal, body))

    async def authorize(
        self, scope: Scope | None, text: Credential, client: str, *, stale_s: float = 0.0
    ) -> Principal | Response:
        """
        Return the principal of the key *text* within its limits, or the response for a key without *scope*.

        Any key has the scope None.

        Args:
            stale_s: while the store is away, a key counts that was read within this time.
        """
        try:
            principal = await self._authenticated(text, client, stale_s)
        except Unavailable as error:
            self._on_error(error)
            return errors.unavailable(error)
        if principal is None:
            return errors.unauthorized()
        if isinstance(principal, Expired):
            return errors.key_expired()
        if isinstance(principal, Response):
            return principal
        refusal = self._refusal(principal, client)
        if refusal is not None:
            return refusal
        return principal if scope is None or principal.may(scope) else errors.forbidden(scope)

    async def lapsed(self, scope: Scope, key: Credential) -> Response | None:
        """
        Return why *key* may not go on with what needs *scope*; None if it may.

        For answers that go on after their handler has returned. No limit is charged, and while the store is
        away the key counts.
        """
        try:
            principal = await self._authenticator.authenticate(key)
        except Unavailable:
            return None
        if principal is None:
            return errors.unauthorized()
        if isinstance(principal, Expired):
            return errors.key_expired()
        return None if principal.may(scope) else errors.forbidden(scope)

    def _refusal(self, principal: Principal, client: str) -> Response | None:
        """Return why *principal* may do nothing now, from the address *client*."""
        limiter, rate = self._limiter, principal.rate_limit
        if not principal.may_come_from(client):
            # The holder of the key is elsewhere: its limit must not pay for this.
            if limiter.admit(Policy.ANONYMOUS, client):
                return errors.address_forbidden()
            return self._refuse(Policy.ANONYMOUS, client)
        if not limiter.admit(Policy.API, principal.key_id, rate=rate):
            return errors.too_many_requests(limiter.refusal(Policy.API, principal.key_id, rate=rate))
        return None

    async def _authenticated(
        self, text: Credential, client: str, stale_s: float
    ) -> Principal | Expired | Response | None:
        """
        Return the principal of the key *text*; None if it is invalid; 429 if *client* tries too many.

        Clients behind one address share the limit on invalid keys, so a valid key must not depend on it:
        a key that was valid at its last use is looked up at once. Any other key is charged to the
        address before its look-up and refunded if it is valid. Over the limit, one list of all keys a
        second serves every client, and only keys on it are looked up.
        """
        authenticator, limiter = self._authenticator, self._limiter
        if authenticator.was_valid(text):
            return await authenticator.authenticate(text, stale_s=stale_s)
        if not limiter.admit(Policy.ANONYMOUS, client):
            if await authenticator.is_listed(text):
                return await authenticator.authenticate(text)
            return self._refuse(Policy.ANONYMOUS, client)
        principal: Principal | Expired | None = None
        try:
            principal = await authenticator.authenticate(text)
        except Unavailable:
            limiter.refund(Policy.ANONYMOUS, client)
            raise
        if principal is not None:
            limiter.refund(Policy.ANONYMOUS, client)
        return principal

    async def charge(self, policy: Policy, key: str, cost: int, *, longest_s: float) -> Response | None:
        """
        Count *cost* units of *policy* for *key*, waiting for them up to *longest_s*; return the refusal.

        A lease of a shared limit takes a moment, which no answer of the limiter tells.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + longest_s
        while not self._limiter.admit(policy, key, cost):
            refusal = self._limiter.refusal(policy, key, cost)
            if loop.time() + refusal.retry_after_s > until:
                return errors.too_many_requests(refusal)
            await asyncio.sleep(max(refusal.retry_after_s, _SHORTEST_WAIT_S))
        return None

    def _refuse(self, policy: Policy, key: str) -> Response:
        return errors.too_many_requests(self._limiter.refusal(policy, key))


def _refused_type(operation: Operation, request: Request) -> Response | None:
    """Return the answer that refuses the body of *request* for its type, or its encoding."""
    content_type = request.headers.get("content-type", "")
    if operation.body is not None:
        if operation.upload is not None:
            if not fields.is_json(content_type) and not fields.is_lines(content_type):
                return errors.neither_json_nor_lines()
        elif not fields.is_json(content_type):
            return errors.not_json()
    has_body = operation.body is not None or operation.takes
    if has_body and not fields.is_plain(request.headers.get("content-encoding", "")):
        return errors.encoded()
    return None


def bearer(request: Request) -> str:
    """Return the token in the Authorization header of *request*; nothing if there is none."""
    scheme, token = fields.credentials(request.headers.get("authorization", ""))
    return token if scheme == "bearer" else ""


def check_query(known: Collection[str], request: Request, *, lists: Collection[str] = ()) -> None:
    """
    Refuse parameters that the operation would not read: a client that sends one expects an effect.

    Raises:
        InvalidInput: naming each of them, and each of *known* that is sent twice and is not one of *lists*.
    """
    problems = [
        FieldError(name, "unknown_parameter", _unknown(known)) for name in request.query if name not in known
    ]
    problems += [
        FieldError(name, "repeated_parameter", "must be sent once")
        for name in sorted(request.repeated)
        if name in known and name not in lists
    ]
    if problems:
        raise InvalidInput(problems)


def _unknown(known: Collection[str]) -> str:
    return (
        f"is unknown here; known: {', '.join(sorted(known))}" if known else "is unknown; there are none here"
    )
