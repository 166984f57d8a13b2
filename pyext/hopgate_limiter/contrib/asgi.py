"""
Limits for ASGI applications: Starlette, FastAPI, Quart, Litestar, Django.

    app.add_middleware(RateLimitMiddleware, limits=RateLimits("100/min"))  # Starlette, FastAPI
    app = RateLimitMiddleware(app, RateLimits("100/min"))  # any other
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._answers import Answer, problem
from hopgate_limiter.contrib._call import CHARGES, Call
from hopgate_limiter.contrib._keys import by_address, by_header, by_user
from hopgate_limiter.contrib._limits import Charges, RateLimits

__all__ = ["Answer", "RateLimitMiddleware", "RateLimits", "by_address", "by_header", "by_user", "problem"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


_NAMES = frozenset(
    name.lower().encode()
    for name in (
        "RateLimit-Policy",
        "RateLimit",
        "Retry-After",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    )
)
"""The fields of `Decision.headers`, as ASGI has them."""


class AsgiCall(Call):
    """A request in an ASGI scope."""

    __slots__ = ()

    @property
    def method(self) -> str:
        method: str = self.native["method"]
        return method

    @property
    def path(self) -> str:
        return path_in(self.native)

    @property
    def peer(self) -> str | None:
        client = self.native.get("client")
        return client[0] or None if client else None

    @property
    def address(self) -> str | None:
        # The key of most limits: `peer` would be one call more.
        if not self._trusted.are_none:
            return super().address
        client = self.native.get("client")
        return client[0] or None if client else None

    @property
    def user(self) -> str | int | None:
        return _identity(self.native.get("user"))

    def header_lines(self, name: str) -> Sequence[str]:
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for field, value in self.native["headers"] if field == wanted]


def path_in(scope: Scope) -> str:
    """Return the path below the mount point: a scope's path begins with its root path."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not root:
        return path
    root = root.rstrip("/")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :] or "/"
    return path


def _identity(user: Any) -> str | int | None:
    """Return what identifies a user of Starlette or Django, None for an anonymous one."""
    if user is None or not getattr(user, "is_authenticated", True):
        return None
    for name in ("identity", "pk", "id", "username", "display_name"):
        try:
            found = getattr(user, name)
        except (AttributeError, NotImplementedError):  # Starlette's SimpleUser implements not all of its base
            continue
        if isinstance(found, int):
            return found
        if found:
            return str(found)
    return None


class RateLimitMiddleware:
    """
    Refuses requests beyond the limits, and writes the headers of the others.

    Only HTTP requests count: WebSockets and the lifespan pass. Messages pass as they come, so that responses
    stay streams. Of several in a row the outermost writes the headers.
    """

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        """Wrap *app*."""
        _arguments.function("app", app)
        _arguments.of_type("limits", "RateLimits", limits, RateLimits)
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limits = self.limits
        charges: Charges | None = scope.get(CHARGES)
        if charges is None:
            charges = scope[CHARGES] = Charges(self)
            send = _with_headers(send, limits, charges)
        limit = limits.rule(scope["method"], path_in(scope))
        if limit is not None:
            call = AsgiCall(scope, limits.trusted)
            if limit.is_shared:
                refusal = await limits.check_async(limit, "*", call, charges)
            else:
                refusal = limits.check(limit, "*", call, charges)
            if refusal is not None:
                await send_answer(limits.answer(call, refusal), scope, receive, send)
                return
        await self.app(scope, receive, send)


class HeadersMiddleware:
    """Writes the headers of limits inside of an application, and charges nothing itself."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        """Wrap *app*, which is not the outermost: servers ask that for a coroutine function."""
        self.app = app
        self.limits = limits

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection."""
        if scope["type"] == "http" and CHARGES not in scope:
            charges = scope[CHARGES] = Charges(self)
            send = _with_headers(send, self.limits, charges)
        return self.app(scope, receive, send)


def _with_headers(send: Send, limits: RateLimits, charges: Charges) -> Send:
    style = limits.header_style

    # Not a coroutine function: what it returns is awaited all the same, for one coroutine less a message.
    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start" and (decision := charges.decision) is not None:
            status = message["status"]
            ours = (
                _fields(limits, charges, status)
                if style is None
                else decision._fields(style, 300 <= status < 400)
            )
            if ours:
                theirs = message.get("headers", ())
                for name, _ in theirs:
                    if name in _NAMES:
                        ours = [field for field in ours if field[0] != name]
                # A new message: the application may send the same list again.
                message = {**message, "headers": [*theirs, *ours]}
        return send(message)

    return send_with_headers


def _fields(limits: RateLimits, charges: Charges, status: int) -> list[tuple[bytes, bytes]]:
    """Return `limits.headers` as ASGI has them."""
    headers = limits.headers(charges, status)
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def send_answer(answer: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an `Answer`, or a response that is an ASGI application, as Starlette's are."""
    if not isinstance(answer, Answer):
        await answer(scope, receive, send)
        return
    body = b"" if scope["method"] == "HEAD" else answer.body
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()
    ]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
