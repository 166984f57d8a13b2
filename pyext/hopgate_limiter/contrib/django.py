"""
Limits for Django, for synchronous and asynchronous views.

    # project/limits.py
    limits = RateLimits("100/min")

    # settings.py
    HOPGATE_LIMITS = "project.limits.limits"
    MIDDLEWARE = [..., "hopgate_limiter.contrib.django.RateLimitMiddleware"]

    # views.py
    @limits.limit("10/min")
    def search(request): ...

A limit of a view takes the place of the default. A method of a class needs Django's `method_decorator`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.utils.module_loading import import_string  # type: ignore[import-untyped]
from hopgate_limiter import Decision
from hopgate_limiter.contrib import _limits
from hopgate_limiter.contrib._answers import Answer, problem
from hopgate_limiter.contrib._call import CHARGES, EnvironCall
from hopgate_limiter.contrib._keys import KeyOf, by_address, by_header, by_user
from hopgate_limiter.contrib._limits import MARK, Charges, CostOf, Limit, Rates

__all__ = ["Answer", "RateLimitMiddleware", "RateLimits", "by_address", "by_header", "by_user", "problem"]

_View = TypeVar("_View", bound=Callable[..., Any])


class DjangoCall(EnvironCall):
    """A request of Django, under WSGI or ASGI."""

    __slots__ = ()

    @property
    def environ(self) -> Any:
        return self.native.META

    @property
    def method(self) -> str:
        return self.native.method or "GET"

    @property
    def path(self) -> str:
        path: str = self.native.path_info
        return path

    @property
    def user(self) -> str | int | None:
        user = getattr(self.native, "user", None)
        if user is None or not user.is_authenticated:
            return None
        return user.pk if isinstance(user.pk, int) else str(user.pk)


class RateLimits(_limits.RateLimits):
    """The limits of a Django project."""

    def limit(
        self,
        *rates: Rates,
        name: str | None = None,
        key: KeyOf | None = None,
        cost: CostOf | None = None,
        shadow: bool | None = None,
    ) -> Callable[[_View], _View]:
        """
        Return a decorator for a view, plain or async.

        The arguments are those of `make_limit`. A view counts for itself; views of one *name* count together.
        """
        limit = self.make_limit(*rates, name=name, key=key, cost=cost, shadow=shadow)

        def decorate(view: _View) -> _View:
            if iscoroutinefunction(view):

                @wraps(view)
                async def limited_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                    refused = await self._check_async(limit, _label(request, view), request)
                    response = await view(request, *args, **kwargs) if refused is None else refused
                    return self._with_headers(request, response, self)

                return self._marked(limited_async, view)

            @wraps(view)
            def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                refused = self._check(limit, _label(request, view), request)
                response = view(request, *args, **kwargs) if refused is None else refused
                return self._with_headers(request, response, self)

            return self._marked(limited, view)

        return decorate

    def exempt(self, view: _View) -> _View:
        """Mark a view as one without the default rates."""
        return self._marked(view, view)

    def _marked(self, view: Any, wrapped: _View) -> _View:
        setattr(view, MARK, (*getattr(wrapped, MARK, ()), self))
        return cast("_View", view)

    def _default_of(self, request: HttpRequest, view: Any) -> Limit | None:
        if self in getattr(view, MARK, ()):
            return None
        return self.rule(request.method, request.path_info)

    def _check(self, limit: Limit, label: str, request: HttpRequest) -> Any:
        call = DjangoCall(request, self.trusted)
        return self._answered(call, self.check(limit, label, call, _charges(request, self)))

    async def _check_async(self, limit: Limit, label: str, request: HttpRequest) -> Any:
        call = DjangoCall(request, self.trusted)
        charges = _charges(request, self)
        try:
            refusal = await self.check_async(limit, label, call, charges)
        except SynchronousOnlyOperation:  # the key asks for the user, whom Django has yet to load
            await sync_to_async(limit.key)(call)
            refusal = await self.check_async(limit, label, call, charges)
        return self._answered(call, refusal)

    def _answered(self, call: DjangoCall, refusal: Decision | None) -> Any:
        if refusal is None:
            return None
        answer = self.answer(call, refusal)
        if not isinstance(answer, Answer):
            return answer
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))

    def _with_headers(self, request: HttpRequest, response: Any, writer: object) -> Any:
        charges: Charges | None = request.META.get(CHARGES)
        if charges is not None and charges.writer is writer:
            for name, value in self.headers(charges, response.status_code).items():
                response.headers.setdefault(name, value)
        return response


def _charges(request: HttpRequest, writer: object) -> Charges:
    # META is the environ, which a WSGI middleware around Django has charged before.
    charges: Charges = request.META.setdefault(CHARGES, Charges(writer))
    return charges


def _label(request: HttpRequest, view: Any) -> str:
    """Name a route by its name and its view, which do not change with the language, as its path may."""
    match = request.resolver_match
    found = view if match is None else match.func
    # Views of all classes are one function, and so are methods that they inherit.
    found = getattr(found, "view_class", found)
    named = f"{found.__module__}.{getattr(found, '__qualname__', type(found).__qualname__)}"
    return named if match is None else f"{match.view_name} {named}"


class RateLimitMiddleware:
    """
    Gives views the default rates, and all responses their headers.

    The setting HOPGATE_LIMITS is a `RateLimits` or where one is, "project.limits.limits". The place in
    MIDDLEWARE matters for keys by user: below AuthenticationMiddleware.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """
        Wrap the rest of the project.

        Raises:
            ImproperlyConfigured: the setting is missing, or not a `RateLimits` of this module.
        """
        # As a name of this module it would make tools that look at names ask for a configuration.
        from django.conf import settings  # type: ignore[import-untyped]

        named = getattr(settings, "HOPGATE_LIMITS", None)
        limits = import_string(named) if isinstance(named, str) else named
        if not isinstance(limits, RateLimits):
            raise ImproperlyConfigured(
                "HOPGATE_LIMITS must be a hopgate_limiter.contrib.django.RateLimits or the path of one, "
                f"got {limits!r}"
            )
        self.limits = limits
        self.get_response = get_response
        self.process_view: Callable[..., Any] = self._check_view
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.process_view = self._check_view_async

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        if iscoroutinefunction(self):
            return self._serve_async(request)
        _charges(request, self)
        return self.limits._with_headers(request, self.get_response(request), self)  # noqa: SLF001

    async def _serve_async(self, request: HttpRequest) -> Any:
        _charges(request, self)
        return self.limits._with_headers(request, await self.get_response(request), self)  # noqa: SLF001

    def _check_view(self, request: HttpRequest, view: Any, *_: Any) -> Any:
        limit = self.limits._default_of(request, view)  # noqa: SLF001
        return None if limit is None else self.limits._check(limit, "*", request)  # noqa: SLF001

    async def _check_view_async(self, request: HttpRequest, view: Any, *_: Any) -> Any:
        limit = self.limits._default_of(request, view)  # noqa: SLF001
        return None if limit is None else await self.limits._check_async(limit, "*", request)  # noqa: SLF001
