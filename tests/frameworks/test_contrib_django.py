"""Limits of Django views, under WSGI and ASGI."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType, SimpleNamespace

import django  # type: ignore[import-untyped]
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings  # type: ignore[import-untyped]
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation  # type: ignore[import-untyped]
from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
from django.http import HttpResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory, override_settings  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from django.utils.decorators import method_decorator  # type: ignore[import-untyped]
from django.views import View  # type: ignore[import-untyped]
from hopgate_limiter import Limiter, ManualClock
from hopgate_limiter.contrib.django import Answer, RateLimitMiddleware, RateLimits, by_header, by_user

MIDDLEWARE = "hopgate_limiter.contrib.django.RateLimitMiddleware"

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="tests", DEBUG=False, LOGGING_CONFIG=None)
    django.setup()


def limits_of(*default, **options):
    clock = ManualClock()
    return RateLimits(*default, make=lambda _, rates: Limiter(*rates, clock=clock), **options)


@pytest.fixture
def site():
    """Make a project of limits and views, and return what asks it: by WSGI or ASGI."""
    made: list[tuple] = []

    def make(limits, *, is_async=False, middleware=(MIDDLEWARE,), route=None, **views):
        urls = ModuleType(f"urls_{len(made)}_{id(limits)}")
        urls.urlpatterns = [path(name, view, name=route) for name, view in views.items()]  # type: ignore[attr-defined]
        sys.modules[urls.__name__] = urls
        overridden = override_settings(
            ROOT_URLCONF=urls.__name__, MIDDLEWARE=list(middleware), HOPGATE_LIMITS=limits
        )
        overridden.enable()
        made.append((urls.__name__, overridden))
        if not is_async:
            client = Client(raise_request_exception=False)
            return lambda name, **headers: client.get(f"/{name}", headers=headers, REMOTE_ADDR="198.51.100.7")
        async_client = AsyncClient(raise_request_exception=False)
        return lambda name, **headers: async_to_sync(async_client.get)(f"/{name}", headers=headers)

    yield make
    for name, overridden in reversed(made):
        overridden.disable()
        del sys.modules[name]


def hello(request):
    return HttpResponse("hello")


async def hello_async(request):
    return HttpResponse("hello")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("view", [hello, hello_async])
def test_limit_of_a_view_takes_the_place_of_the_default(site, view, is_async):
    limits = limits_of("3/h")
    ask = site(
        limits,
        is_async=is_async,
        default=view,
        own=limits.limit("1/h")(view),
        wide=limits.limit("50/h", name="wide")(view),
        exempt=limits.exempt(lambda request: HttpResponse("x")),
    )

    assert [ask("own").status_code for _ in range(2)] == [200, 429]
    assert [ask("default").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert [ask("wide").status_code for _ in range(4)] == [200] * 4
    assert [ask("exempt").status_code for _ in range(4)] == [200] * 4
    refused = ask("own")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["status"] == 429
    assert refused.headers["Retry-After"] == "3600"
    assert refused.headers["RateLimit"] == '"1/h";r=0;t=3600'
    assert ask("wide").headers["RateLimit-Policy"] == '"50/h";q=50;w=3600'
    assert "RateLimit" not in ask("exempt").headers


@pytest.mark.parametrize("view", [hello, hello_async])
def test_decorator_works_without_the_middleware(site, view):
    limits = limits_of()
    ask = site(limits, middleware=(), own=limits.limit("1/h")(view))
    responses = [ask("own") for _ in range(2)]

    assert [response.status_code for response in responses] == [200, 429]
    assert responses[0].headers["RateLimit"] == '"1/h";r=0;t=3600'
    assert responses[1].headers["Retry-After"] == "3600"


@pytest.mark.parametrize("view", [hello, hello_async])
@pytest.mark.parametrize("first", ["address", "key"])
def test_two_limits_of_a_view_charge_both_or_none(site, view, first):
    limits = limits_of()
    decorators = [limits.limit("3/h"), limits.limit("1/h", key=by_header("x-api-key"))]
    outer, inner = decorators if first == "address" else decorators[::-1]
    ask = site(limits, both=outer(inner(view)))

    assert [ask("both", **{"x-api-key": "a"}).status_code for _ in range(5)] == [200] + [429] * 4
    assert [ask("both", **{"x-api-key": key}).status_code for key in "bcd"] == [200, 200, 429]


def test_class_based_views(site):
    limits = limits_of("9/h")

    @method_decorator(limits.limit("1/h"), name="dispatch")
    class Page(View):
        def get(self, request):
            return HttpResponse("page")

    class Part(View):
        @method_decorator(limits.limit("2/h"))
        def get(self, request):
            return HttpResponse("part")

    @method_decorator(limits.limit("1/h"), name="dispatch")
    class Other(View):
        def get(self, request):
            return HttpResponse("other")

    ask = site(limits, page=Page.as_view(), part=Part.as_view(), other=Other.as_view())
    assert [ask("page").status_code for _ in range(2)] == [200, 429]
    assert [ask("other").status_code for _ in range(2)] == [200, 429]
    assert [ask("part").status_code for _ in range(3)] == [200, 200, 429]


def test_views_of_one_route_name_count_for_themselves(site):
    """Also methods that their classes inherit."""
    limits = limits_of()
    decorate = method_decorator(limits.limit("1/h"), name="dispatch")

    class Page(View):
        def get(self, request):
            return HttpResponse("page")

    class Other(View):
        def get(self, request):
            return HttpResponse("other")

    ask = site(limits, route="index", page=decorate(Page).as_view(), other=decorate(Other).as_view())
    assert [ask(name).status_code for name in ("page", "other", "page", "other")] == [200, 200, 429, 429]


def test_views_keep_their_names_and_kinds():
    limits = limits_of()
    plain, coroutine = limits.limit("1/h")(hello), limits.limit("1/h")(hello_async)
    assert (plain.__name__, coroutine.__name__) == ("hello", "hello_async")
    assert not inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(coroutine)


def test_streams_and_exceptions_pass(site):
    limits = limits_of("9/h")

    def stream(request):
        return StreamingHttpResponse(iter(["a", "b"]))

    def boom(request):
        raise LookupError("theirs")

    ask = site(limits, stream=stream, boom=boom)
    response = ask("stream")
    assert response.streaming
    assert response.getvalue() == b"ab"
    assert "RateLimit" in response.headers
    failed = ask("boom")
    assert failed.status_code == 500
    assert failed.exc_info[0] is LookupError


@pytest.mark.parametrize("is_async", [False, True])
def test_key_by_user_may_load_the_user(is_async):
    """In an event loop Django refuses to: then a thread does."""

    class Lazy:
        is_loaded = False

        @property
        def is_authenticated(self):
            if not self.is_loaded:
                try:
                    import asyncio

                    asyncio.get_running_loop()
                except RuntimeError:
                    self.is_loaded = True
                else:
                    raise SynchronousOnlyOperation
            return True

        pk = 7

    limits = limits_of(key=by_user())
    factory = AsyncRequestFactory() if is_async else RequestFactory()
    found = []
    for _ in range(2):
        request = factory.get("/")
        request.user = Lazy()
        view = limits.limit("1/h")(hello_async if is_async else hello)
        found.append((async_to_sync(view)(request) if is_async else view(request)).status_code)
    anonymous = factory.get("/")
    anonymous.user = SimpleNamespace(is_authenticated=False)
    view = limits.limit("1/h")(hello)

    assert found == [200, 429]
    assert view(anonymous).status_code == 200


def test_rules_of_paths_and_own_answers(site):
    answers = (lambda *_: Answer.text("slow", status=503), lambda *_: HttpResponse("slow", status=503))
    for answer in answers:
        limits = limits_of("9/h", routes={"/slow": "1/h", "/free": None}, answer=answer)
        ask = site(limits, slow=hello, free=hello)
        assert [ask("slow").status_code for _ in range(2)] == [200, 503]
        assert ask("slow").headers["Retry-After"] == "3600"
        assert "RateLimit" not in ask("free").headers


def test_missing_setting_is_named():
    for value in (None, "json.loads", object()):
        with (
            override_settings(HOPGATE_LIMITS=value),
            pytest.raises(ImproperlyConfigured, match="HOPGATE_LIMITS"),
        ):
            RateLimitMiddleware(hello)


def test_limits_may_be_named_by_their_path(site):
    module = ModuleType("a_projects_limits")
    module.limits = limits_of("1/h")  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        ask = site("a_projects_limits.limits", home=hello)
        assert [ask("home").status_code for _ in range(2)] == [200, 429]
    finally:
        del sys.modules[module.__name__]


def test_handlers_of_both_kinds_take_the_middleware(site):
    """Django adapts what cannot run in its own mode, at the price of a thread: nothing here needs that."""
    site(limits_of("1/h"), home=hello)
    assert RateLimitMiddleware.sync_capable
    assert RateLimitMiddleware.async_capable
    for handler, is_async in ((WSGIHandler(), False), (ASGIHandler(), True)):
        handler.load_middleware(is_async=is_async)
        (process_view,) = handler._view_middleware
        assert inspect.iscoroutinefunction(process_view) is is_async
        assert process_view.__self__.__class__ is RateLimitMiddleware
