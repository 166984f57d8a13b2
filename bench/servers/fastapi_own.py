"""The same redirect handler on FastAPI, for uvicorn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from app import settings as environment
from app.bootstrap import open_gateway
from app.web.redirect import with_query


@asynccontextmanager
async def _services(application: FastAPI) -> AsyncIterator[None]:
    async with open_gateway(environment.load()) as services:
        application.state.lane = services.lane
        yield


async def _redirect(slug: str, request: Request) -> Response:
    client = request.client.host if request.client else ""
    query = request.scope["query_string"].decode("latin-1")
    answer = with_query(await request.app.state.lane.answer(slug, client), query)
    return Response(answer.body, answer.status, dict(answer.headers))


def create() -> FastAPI:
    """Make the application; its services are opened by the server's event loop."""
    application = FastAPI(lifespan=_services, openapi_url=None)
    application.add_api_route("/{slug}", _redirect, methods=["GET"], response_model=None)
    return application
