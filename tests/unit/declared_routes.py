"""The routes of the gateway, declared over services that do nothing."""

from __future__ import annotations

from collections.abc import Collection
from unittest.mock import MagicMock

from app.web.endpoint import Route
from app.web.robyn_app import new_application, routes_of
from app.web.routes import register


def declared_routes(dialects: Collection[str] = ()) -> list[Route]:
    application = new_application()
    register(application, MagicMock(public_url="http://hop.example", dialects=dialects))
    return list(routes_of(application))
