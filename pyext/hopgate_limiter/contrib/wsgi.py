"""
Limits for WSGI applications.

    application = RateLimitMiddleware(application, RateLimits("100/min"))
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._answers import Answer, problem
from hopgate_limiter.contrib._call import CHARGES, EnvironCall
from hopgate_limiter.contrib._keys import by_address, by_header, by_user
from hopgate_limiter.contrib._limits import Charges, RateLimits

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Answer", "RateLimitMiddleware", "RateLimits", "by_address", "by_header", "by_user", "problem"]


class RateLimitMiddleware:
    """
    Refuses requests beyond the limits, and writes the headers of the others.

    The application's iterable is returned as it is, so that responses stay streams and are closed. Of several
    in a row the outermost writes the headers.
    """

    def __init__(self, app: WSGIApplication, limits: RateLimits, *, checks: bool = True) -> None:
        """Wrap *app*; without *checks* only the headers of limits inside of it are written."""
        _arguments.function("app", app)
        _arguments.of_type("limits", "RateLimits", limits, RateLimits)
        _arguments.flag("checks", checks)
        self.app = app
        self.limits = limits
        self._checks = checks

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        limits = self.limits
        charges: Charges | None = environ.get(CHARGES)
        if charges is None:
            charges = environ[CHARGES] = Charges(self)
            start_response = _with_headers(start_response, limits, charges)
        if not self._checks:
            return self.app(environ, start_response)
        call = EnvironCall(environ, limits.trusted)
        limit = limits.rule(call.method, call.path)
        if limit is not None:
            refusal = limits.check(limit, "*", call, charges)
            if refusal is not None:
                return _answered(limits.answer(call, refusal), environ, start_response)
        return self.app(environ, start_response)


def _with_headers(start_response: StartResponse, limits: RateLimits, charges: Charges) -> StartResponse:
    def start_with_headers(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        added = limits.headers(charges, int(status[:3]))
        if added:
            present = {name.lower() for name, _ in headers}
            headers = [*headers, *(item for item in added.items() if item[0].lower() not in present)]
        return start_response(status, headers, *exc_info)

    return start_with_headers


def _answered(answer: Any, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send an `Answer`, or a response that is a WSGI application, as Werkzeug's are."""
    if not isinstance(answer, Answer):
        answered: Iterable[bytes] = answer(environ, start_response)
        return answered
    headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
    start_response(f"{answer.status} {_phrase(answer.status)}", headers)
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else answer.body]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"
