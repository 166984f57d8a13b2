"""What each refusal and failure looks like to a client: one table for API, bridge and redirects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from app.domain.errors import InvalidInput, Unavailable
from app.ports import Refusal
from app.web.answer import Answer, problem

_RETRY_S = 1


def unreadable(detail: str) -> Answer:
    """400: not HTTP or JSON that can be read."""
    return problem(400, "unreadable", "The request cannot be read", detail=detail)


def unauthorized() -> Answer:
    """401: no key, or one that is not valid; which of both is not said."""
    challenge = [("www-authenticate", 'Bearer realm="hopgate"')]
    return problem(401, "unauthorized", "A valid API key is required", headers=challenge)


def forbidden(scope: str) -> Answer:
    """403: the key lacks *scope*."""
    return problem(403, "forbidden", "The key may not do this", detail=f"The scope {scope} is missing.")


def not_found() -> Answer:
    """404: nothing here."""
    return problem(404, "not_found", "There is nothing here")


def method_not_allowed(allow: str) -> Answer:
    """405: another method would do."""
    return problem(405, "method_not_allowed", "The method is not allowed here", headers=[("allow", allow)])


def body_timeout() -> Answer:
    """408: the body did not arrive in time."""
    return problem(408, "body_timeout", "The request body took too long", headers=[("connection", "close")])


def gone() -> Answer:
    """410: the link is removed, switched off or expired."""
    return problem(410, "gone", "The link is gone")


def body_too_large(limit: int) -> Answer:
    """413: more than *limit* bytes."""
    detail = f"The most is {limit} bytes."
    return problem(
        413,
        "body_too_large",
        "The request body is too large",
        detail=detail,
        headers=[("connection", "close")],
    )


def not_json() -> Answer:
    """415: a body must say that it is JSON."""
    return problem(415, "not_json", "The body must be sent as application/json")


def invalid(error: InvalidInput) -> Answer:
    """422: readable, but against the rules."""
    return problem(422, "invalid", "The request breaks a rule", detail=str(error), errors=error.errors)


def too_many_requests(refusal: Refusal) -> Answer:
    """429: over the client's limit."""
    headers = {name.lower(): value for name, value in refusal.headers.items()}
    # RFC 9110: whole seconds; never zero, or every refused client comes back at once.
    headers.setdefault("retry-after", str(max(1, math.ceil(min(refusal.retry_after_s, 86_400)))))
    return problem(429, "too_many_requests", "Over the limit", headers=headers.items())


def server_error(trace_id: str) -> Answer:
    """500: our mistake; *trace_id* finds it in the log."""
    return problem(500, "server_error", "Something went wrong on our side", trace_id=trace_id)


def unavailable(error: Unavailable | TimeoutError) -> Answer:
    """503: a dependency does not answer; whether a write took place is not known."""
    what = error.dependency if isinstance(error, Unavailable) else "the service"
    return problem(
        503,
        "unavailable",
        "Temporarily unavailable",
        detail=f"{what} did not answer in time. A write may or may not have taken place.",
        headers=_retry_later(),
    )


def overloaded() -> Answer:
    """503: more to do than can be done, see `app.resilience.admission`. Ready-made."""
    return next(_OVERLOADED)


def _retry_later() -> Iterable[tuple[str, str]]:
    return [("retry-after", str(_RETRY_S))]


# In turn, so that those who are refused together do not come back together.
_OVERLOADED = itertools.cycle(
    problem(
        503,
        "overloaded",
        "Too much to do",
        detail="Nothing was done.",
        headers=[("retry-after", str(seconds))],
    )
    for seconds in (1, 2, 3)
)
