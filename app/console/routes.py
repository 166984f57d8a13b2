"""Every route of the console."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

from app.console import (
    bulk,
    changes,
    domains,
    health,
    imports,
    keys,
    link,
    links,
    live,
    new,
    overview,
    rendering,
    sign_in,
    tags,
)
from app.console.rendering import Pages
from app.console.uploads import UploadGate
from app.service.sessions import Sessions
from app.web.health import Readiness
from app.web.middleware import ApiMiddleware
from app.web.request import Request
from app.web.response import Response
from app.web.robyn_app import Router, public
from app.web.services import Services


def register(
    app: Router,
    middleware: ApiMiddleware,
    services: Services,
    readiness: Readiness,
    *,
    sessions: Sessions,
    language: str,
    clock: Callable[[], datetime],
    token: Callable[[], str],
) -> None:
    """
    Declare the routes on *app*.

    Args:
        clock: the present time, timezone-aware UTC.
        token: makes an unpredictable name of letters and digits.
    """
    pages = Pages(language, urlsplit(services.public_url).path)
    gate = UploadGate(middleware, pages, services.domains.index, sessions, public_url=services.public_url)
    overview.register(app, gate, pages, services)
    sign_in.register(app, gate, pages, sessions)
    links.register(app, gate, pages, services, clock=clock)
    bulk.register(app, gate, middleware, pages, services)
    tags.register(app, gate, pages, services)
    domains.register(app, gate, pages, services)
    keys.register(app, gate, pages, services, clock=clock)
    imports.register(app, gate, middleware, pages, services)
    new.register(app, gate, pages, services, token=token)
    link.register(app, gate, pages, services, clock=clock)
    changes.register(app, gate, pages, services)
    live.register(app, gate, middleware, pages, services, clock=clock)
    health.register(app, gate, pages, services, readiness)

    @app.get(rendering.LIVE)
    @public
    async def live_script(request: Request) -> Response:
        return rendering.asset(rendering.LIVE, request.query.get("v"))

    @app.get(rendering.STYLE)
    @public
    async def style(request: Request) -> Response:
        return rendering.asset(rendering.STYLE, request.query.get("v"))

    @app.get(rendering.SCRIPT)
    @public
    async def script(request: Request) -> Response:
        return rendering.asset(rendering.SCRIPT, request.query.get("v"))

    @app.get(rendering.WORLD)
    @public
    async def world(request: Request) -> Response:
        return rendering.asset(rendering.WORLD, request.query.get("v"))
