"""
Limits for Flask.

    limits = RateLimits("100/min")

    @app.get("/search")
    @limits.limit("10/min")
    def search() -> ...:

    limits.init_app(app)

A limit of a view takes the place of the default. Refusals are raised as werkzeug's TooManyRequests, with the
answer as its response, so that `@app.errorhandler(429)` may give another one.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast

from flask import Flask, Request, Response, after_this_request, current_app, request
from hopgate_limiter import Decision
from hopgate_limiter.contrib import _arguments, _limits
from hopgate_limiter.contrib._answers import Answer, detail, problem
from hopgate_limiter.contrib._call import CHARGES, EnvironCall
from hopgate_limiter.contrib._keys import KeyOf, by_address, by_header, by_user
from hopgate_limiter.contrib._limits import MARK, Charges, CostOf, Limit, Rates
from hopgate_limiter.contrib.wsgi import RateLimitMiddleware
from werkzeug.exceptions import TooManyRequests

__all__ = ["Answer", "RateLimits", "Refused", "by_address", "by_header", "by_user", "problem"]

_View = TypeVar("_View", bound=Callable[..., Any])


class Refused(TooManyRequests):
    """A request beyond a limit."""

    def __init__(self, decision: Decision, response: Any) -> None:
        """Keep the decision; *response* answers it unless the application handles 429 itself."""
        super().__init__(detail(decision), response=response)
        self.decision = decision


class FlaskCall(EnvironCall):
    """A request of Flask."""

    __slots__ = ()

    @property
    def environ(self) -> Any:
        return self.native.environ

    @property
    def user(self) -> str | int | None:
        login = sys.modules.get("flask_login")
        if login is not None and hasattr(current_app, "login_manager"):
            user = login.current_user
            return cast("str | None", user.get_id()) if user.is_authenticated else None
        return super().user


class RateLimits(_limits.RateLimits):
    """The limits of Flask applications and blueprints."""

    def init_app(self, app: Flask) -> None:
        """Give *app* the default rates, and the headers of all responses, by a middleware."""
        _arguments.of_type("app", "Flask", app, Flask)
        app.extensions["hopgate_limiter"] = self
        if self.has_rules:
            app.before_request(self._check_default)
        # A function after each request would cost twice as much.
        app.wsgi_app = RateLimitMiddleware(app.wsgi_app, self, checks=False)  # type: ignore[method-assign]

    def limit(
        self,
        *rates: Rates,
        name: str | None = None,
        key: KeyOf | None = None,
        cost: CostOf | None = None,
        shadow: bool | None = None,
    ) -> Callable[[_View], _View]:
        """
        Return a decorator for a view, plain or async, or for `MethodView.decorators`; routes stand above it.

        The arguments are those of `make_limit`. A view counts for itself, by its endpoint; views of one
        *name* count together.
        """
        limit = self.make_limit(*rates, name=name, key=key, cost=cost, shadow=shadow)

        def decorate(view: _View) -> _View:
            if inspect.iscoroutinefunction(view):

                @wraps(view)
                async def limited_async(*args: Any, **kwargs: Any) -> Any:
                    asked = _request()
                    call, charges = FlaskCall(asked, self.trusted), self._charges(asked)
                    refusal = await self.check_async(limit, asked.endpoint or "*", call, charges)
                    if refusal is not None:
                        self._refuse(call, refusal)
                    return await view(*args, **kwargs)

                return self._marked(limited_async, view)

            @wraps(view)
            def limited(*args: Any, **kwargs: Any) -> Any:
                asked = _request()
                self._check(limit, asked.endpoint or "*", asked)
                return view(*args, **kwargs)

            return self._marked(limited, view)

        return decorate

    def exempt(self, view: _View) -> _View:
        """Mark a view as one without the default rates; routes stand above."""
        return self._marked(view, view)

    def _marked(self, view: Any, wrapped: _View) -> _View:
        setattr(view, MARK, (*getattr(wrapped, MARK, ()), self))
        return cast("_View", view)

    # --- during a request -------------------------------------------------------------------

    def _charges(self, asked: Request) -> Charges:
        charges: Charges | None = asked.environ.get(CHARGES)
        if charges is None:  # the application has no middleware that writes headers
            charges = asked.environ[CHARGES] = Charges(self)
            after_this_request(self._with_headers)
        return charges

    def _check_default(self) -> None:
        asked = _request()
        view = current_app.view_functions.get(asked.endpoint or "")
        if self in getattr(view, MARK, ()):
            return
        limit = self.rule(asked.method, asked.path)
        if limit is not None:
            self._check(limit, "*", asked)

    def _check(self, limit: Limit, label: str, asked: Request) -> None:
        call = FlaskCall(asked, self.trusted)
        refusal = self.check(limit, label, call, self._charges(asked))
        if refusal is not None:
            self._refuse(call, refusal)

    def _refuse(self, call: FlaskCall, refusal: Decision) -> NoReturn:
        answer = self.answer(call, refusal)
        if isinstance(answer, Answer):
            answer = Response(answer.body, answer.status, dict(answer.headers))
        raise Refused(refusal, answer)

    def _with_headers(self, response: Response) -> Response:
        charges: Charges = request.environ[CHARGES]
        for name, value in self.headers(charges, response.status_code).items():
            response.headers.setdefault(name, value)
        return response


def _request() -> Request:
    """Return the request itself: each use of the proxy looks it up anew."""
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return asked
