"""The same redirect handler on BlackSheep, for granian."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from blacksheep import Application, Content, Request, Response

from app import settings as environment
from app.bootstrap import open_gateway
from app.web.redirects import with_query


def create() -> Application:
    """Create the application; the event loop of the server opens its services."""
    application = Application()
    opened: dict[str, Any] = {}

    @application.lifespan
    async def services() -> AsyncIterator[None]:
        async with open_gateway(environment.load()) as gateway:
            opened["redirects"] = gateway.redirects
            yield

    @application.router.get("/{slug}")
    async def redirect(request: Request, slug: str) -> Response:
        query = request.scope["query_string"].decode("latin-1")
        answer = with_query(await opened["redirects"].answer(slug, request.client_ip), query)
        headers = [(name.encode(), value.encode()) for name, value in answer.headers]
        return Response(answer.status, headers, Content(b"text/plain", answer.body) if answer.body else None)

    return application
