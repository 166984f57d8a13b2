"""Every route of the gateway, declared on a Robyn application."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from app.domain.domains import Robots
from app.domain.errors import InvalidInput, Unavailable
from app.telemetry import prometheus
from app.web import (
    aliases_api,
    blocks_api,
    bulk_api,
    domains_api,
    errors,
    events_api,
    export_api,
    find_links,
    health,
    history_api,
    import_api,
    keys_api,
    links_api,
    openapi,
    qr_api,
    stats_api,
    tags_api,
    webhooks_api,
)
from app.web import status as page
from app.web.after_slug import AfterSlug
from app.web.dialects import bitly, shlink, yourls
from app.web.middleware import ApiMiddleware, check_query
from app.web.qr_codes import QrCodes
from app.web.redirects import with_query
from app.web.request import Request
from app.web.response import SECURITY_HEADERS, Response, json_response, text_response
from app.web.robyn_app import Router, keyed, new_router, of_host, of_visit, public, routes_of
from app.web.services import Services

# Browsers ask again after a week.
_ICON_CACHING = "public, max-age=604800"
_ROBOTS = {
    Robots.ALLOW: b"User-agent: *\nAllow: /\nDisallow: /api/\n",
    Robots.DISALLOW: b"User-agent: *\nDisallow: /\n",
}


def register(application: Any, services: Services) -> None:
    """Declare every route on *application*, a `robyn.Robyn`."""
    api = new_router("/api/v1")
    middleware = ApiMiddleware(
        limiter=services.limiter,
        authenticator=services.authenticator,
        admission=services.admission,
        on_error=services.on_error,
    )
    links_api.register_links(
        api,
        middleware,
        services.links,
        bulk=services.bulk,
        domains=services.domains,
        keys=services.keys,
    )
    bulk_api.register_bulk(
        api,
        middleware,
        services.bulk,
        domains=services.domains,
        keys=services.keys,
        is_draining=services.is_draining,
    )
    find_links.register_listing(api, middleware, services.listings, services.domains)
    export_api.register(
        api, middleware, services.exports, domains=services.domains, is_draining=services.is_draining
    )
    import_api.register(
        api, middleware, services.imports, domains=services.domains, is_draining=services.is_draining
    )
    tags_api.register_tags(api, middleware, services.listings)
    keys_api.register_keys(api, middleware, services.keys, services.domains, services.key_limits)
    stats_api.register(api, middleware, services.stats, services.domains)
    history_api.register(api, middleware, services.history, services.domains)
    aliases_api.register(api, middleware, services.aliases, services.domains)
    links_api.register_cache(api, middleware, services.links, services.domains)
    blocks_api.register(api, middleware, services.blocks)
    domains_api.register(api, middleware, services.domains)
    webhooks_api.register(api, middleware, services.webhooks)
    codes = QrCodes()
    qr_api.register(api, middleware, services.links, services.domains, codes, logo=services.qr_logo)
    events_api.register(
        api,
        middleware,
        services.events,
        services.domains,
        most=services.event_streams,
        is_draining=services.is_draining,
    )

    @functools.cache
    def description() -> Mapping[str, Any]:
        return openapi.description(services.public_url, routes_of(application), services.target_schemes)

    @api.get("/openapi.json")
    @public
    async def describe(request: Request) -> Response:
        try:
            check_query((), request)
        except InvalidInput as error:
            return errors.invalid(error)
        return json_response(200, description())

    application.include_router(api)
    _register_manual(application, description, services.public_url)
    readiness = health.Readiness()
    _register_operations(application, services, middleware, readiness)
    _register_dialects(application, services, middleware)
    if services.console is not None:
        services.console(application, middleware, services, readiness)
    _register_redirect(application, services, codes)


def _register_manual(app: Router, description: Callable[[], Mapping[str, Any]], public_url: str) -> None:
    """Declare the page that shows the API to people."""

    @functools.cache
    def manual() -> Response:
        # Importing Jinja takes 50 ms, and most processes never show the page.
        from app.web import docs

        return docs.page(description(), public_url)

    @app.get("/docs")
    @public
    async def read_manual(_request: Request) -> Response:
        return manual()


def _register_operations(
    app: Router, services: Services, middleware: ApiMiddleware, readiness: health.Readiness
) -> None:
    """
    Declare what load balancers, scrapers and crawlers ask for, whatever the query, and the page of operators.

    A probe that appends something, and is refused, would take every gateway out of service at once.
    """

    @app.get("/healthz")
    @public
    async def healthz(_request: Request) -> Response:
        return health.alive()

    @app.get("/readyz")
    @public
    async def readyz(_request: Request) -> Response:
        if services.is_draining():
            return health.draining()
        return await readiness.check(services.probes, services.guards)

    @app.get("/metrics")
    @public
    async def metrics(_request: Request) -> Response:
        try:
            text = await services.metrics.text()
        except Unavailable as error:
            services.on_error(error)
            return errors.unavailable(error)
        return text_response(200, text, prometheus.CONTENT_TYPE)

    @app.get("/status")
    @keyed
    async def status(request: Request) -> Response:
        return await page.status(services, readiness, middleware, request)

    icon = Response(
        200,
        [("content-type", "image/x-icon"), ("cache-control", _ICON_CACHING), *SECURITY_HEADERS[1:]],
        resources.files("app.web").joinpath("favicon.ico").read_bytes(),
    )

    @app.get("/favicon.ico")
    @public
    async def favicon(_request: Request) -> Response:
        return icon

    @app.get("/robots.txt")
    @of_host
    async def robots(request: Request) -> Response:
        domain = services.domains.index.at(request.headers.get("host"))
        return text_response(200, _ROBOTS[domain.settings.robots], "text/plain; charset=utf-8")


def _register_dialects(app: Any, services: Services, middleware: ApiMiddleware) -> None:
    """Declare the APIs of other shorteners that are on."""
    if "yourls" in services.dialects:
        yourls.register(app, middleware, services)
    if "shlink" in services.dialects:
        shlink.register(app, middleware, services)
    if "bitly" in services.dialects:
        bitly.register(app, middleware, services)


def _register_redirect(app: Router, services: Services, codes: QrCodes) -> None:
    """Declare `GET /` and `/{slug}`. On granian, `app.web.rsgi` calls the same handler without a route."""
    after = AfterSlug(
        redirects=services.redirects,
        links=services.links,
        domains=services.domains,
        codes=codes,
        admission=services.admission,
        tarpit=services.tarpit,
        has_preview=services.has_preview,
        logo=services.qr_logo,
        on_error=services.on_error,
    )

    @app.get("/")
    @of_host
    async def root(request: Request) -> Response:
        host, page = request.headers.get("host"), services.pages.root
        return services.redirects.root(host, request.client, page if request.wants_page() else None)

    @app.get("/:slug")
    @of_visit
    async def redirect(request: Request) -> Response:
        host, text = request.headers.get("host"), request.path_params["slug"]
        slug = services.redirects.visited(host, text)
        if slug is None:
            return await after.answer(request, text)
        response = await services.redirects.answer(
            slug,
            request.client,
            is_head=request.method == "HEAD",
            intent=request.intent,
        )
        return with_query(response, request.query_string)
