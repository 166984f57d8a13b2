"""`GET /status`: a page of the gateway's figures, for operators; the page asks for them each second."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
from importlib import resources

import msgspec

from app import __version__
from app.concurrency.time_limit import within
from app.domain.errors import FieldError, InvalidInput, Unavailable
from app.resilience.deadline import ADMIN_S
from app.service.keys import Scope
from app.telemetry.overview import Overview
from app.web import errors, html
from app.web import headers as fields
from app.web.health import Readiness
from app.web.middleware import ApiMiddleware, check_query
from app.web.request import Request
from app.web.response import Response, json_response
from app.web.services import Services

# While the store is away, keys count that were read from it within this time: the page is for such times.
STALE_KEY_S = 600.0
# A browser asks for a key only by this scheme, and sends it with what the page asks for.
_CHALLENGE = ("www-authenticate", 'Basic realm="hopgate: the API key is the password", charset="UTF-8"')
_FORMATS = ("html", "json")


class Status(msgspec.Struct, frozen=True):
    """The document that the page asks for."""

    version: str
    dependencies: dict[str, str]
    overview: Overview


async def status(
    services: Services, readiness: Readiness, middleware: ApiMiddleware, request: Request
) -> Response:
    """Answer with the page, or with its figures if the query says format=json."""
    try:
        async with within(ADMIN_S):
            refusal = await _refusal(services, middleware, request)
            if refusal is not None:
                return refusal
            check_query(("format",), request)
            wanted = request.query.get("format", "html")
            if wanted not in _FORMATS:
                message = f"must be one of {', '.join(_FORMATS)}"
                raise InvalidInput([FieldError("format", "format_unknown", message)])
            if wanted == "html":
                return page()
            found = await figures(services, readiness)
    except InvalidInput as error:
        services.on_error(error)
        return errors.invalid(error)
    except (Unavailable, TimeoutError) as error:
        services.on_error(error)
        return errors.unavailable(error)
    return json_response(200, found)


async def figures(services: Services, readiness: Readiness) -> Status:
    """
    Return the figures, about a second old at most. The first ones after a pause take a second.

    Raises:
        Unavailable: they cannot be read.
    """
    dependencies, overview = await asyncio.gather(
        readiness.dependencies(services.probes), services.recent.get()
    )
    return Status(__version__, dict(dependencies), overview)


async def _refusal(services: Services, middleware: ApiMiddleware, request: Request) -> Response | None:
    """Return what a client without a key of the scope admin gets; None if it may see the figures."""
    if services.is_for_this_machine and request.is_local():
        return None
    text = key_of(request.headers.get("authorization", ""))
    principal = await middleware.authorize(Scope.ADMIN, text, request.client, stale_s=STALE_KEY_S)
    if not isinstance(principal, Response):
        return None
    if principal.status != 401:
        return principal
    others = [one for one in principal.headers if one[0] != _CHALLENGE[0]]
    return msgspec.structs.replace(principal, headers=[*others, _CHALLENGE])


def key_of(authorization: str) -> str:
    """Return the key in an Authorization header: the token of Bearer, or the password of Basic; else ""."""
    scheme, token = fields.credentials(authorization)
    if scheme == "bearer":
        return token
    if scheme != "basic":
        return ""
    try:
        decoded = base64.b64decode(token, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""
    return decoded.partition(":")[2]


@functools.cache
def page() -> Response:
    """Return the page, which holds no figures."""
    return html.page(
        resources.files("app.web").joinpath("status.html").read_bytes(), runs=True, connects=True
    )
