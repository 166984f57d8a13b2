"""The same redirect handler on FastAPI, for uvicorn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from app import settings as environment
from app.bootstrap import open_gateway
from app.web.redirects import with_query


@asynccontextmanager
async def _services(application: FastAPI) -> AsyncIterator[None]:
    async with open_gateway(environment.load()) as services:
        application.state.redirects = services.redirects
        yield


async def _redirect(slug: str, request: Request) -> Response:
    client = request.client.host if request.client else ""
    query = request.scope["query_string"].decode("latin-1")
    answer = with_query(await request.app.state.redirects.answer(slug, client), query)
    return Response(answer.body, answer.status, dict(answer.headers))


def create() -> FastAPI:
    """Create the application; the event loop of the server opens its services."""
    application = FastAPI(lifespan=_services, openapi_url=None)
    application.add_api_route("/{slug}", _redirect, methods=["GET"], response_model=None)
    return application
