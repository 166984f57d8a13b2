"""
A Django project in one file, with limits: `gunicorn django_app:application`.

With REDIS_URL set, all its processes share them.
"""

import os

from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from hopgate_limiter.contrib.django import RateLimits, by_header

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="an example has no secrets",  # noqa: S106
        MIDDLEWARE=["hopgate_limiter.contrib.django.RateLimitMiddleware"],
        HOPGATE_LIMITS=f"{__name__}.limits",
    )

limits = RateLimits(
    "100/min burst 20",
    redis=os.environ.get("REDIS_URL"),
    prefix="rl:django-example:",
    trusted_proxies=("10.0.0.0/8",),
)


def home(_: HttpRequest) -> JsonResponse:
    """Count towards the default."""
    return JsonResponse({"hello": "world"})


@limits.exempt
def healthz(_: HttpRequest) -> JsonResponse:
    """Count towards nothing."""
    return JsonResponse({"ok": True})


@limits.limit("4/min")
@limits.limit("100/h", key=by_header("x-api-key"))
async def search(_: HttpRequest) -> JsonResponse:
    """Count an address and an API key; either may refuse, and then neither is charged."""
    return JsonResponse({"found": []})


urlpatterns = [path("", home), path("healthz", healthz), path("search", search)]
application = get_wsgi_application()
asgi_application = get_asgi_application()
