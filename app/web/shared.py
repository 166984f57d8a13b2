"""
The bridge for pages of other origins: cross-origin resource sharing, by a list of origins.

Without a list, granian serves the bridge itself, and browsers let no other page read an answer. A key is
sent in a header, never by the browser on its own, so credentials are never allowed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec.structs import replace

from app.telemetry.requests import Exchange
from app.web.dialects import CHUNKED
from app.web.response import Response
from app.web.rsgi import RsgiApplication
from app.web.scope import RsgiScope

# What pages may ask for; every other path of the service is for visitors, or for operators.
_SHARED = ("/api/", "/yourls-api.php", *CHUNKED.values())
_SENT = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Api-Key, X-Request-Id,"
    " X-Requested-With"
)
_SHOWN = "ETag, Location, Retry-After, Link, X-Request-Id, Idempotency-Replayed, RateLimit, RateLimit-Policy"
# Browsers keep the answer to a preflight for at most two hours.
_MAX_AGE_S = 7200


class SharedApplication(RsgiApplication):
    """
    What granian serves with a list of origins.

    Args:
        origins: those that may call; `*` alone allows any.
    """

    def __init__(self, *args: Any, origins: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._origins = origins
        self._allows_any = "*" in origins

    async def _dispatch(self, scope: RsgiScope, protocol: Any, exchange: Exchange) -> Response:
        response = await super()._dispatch(scope, protocol, exchange)
        if not scope.path.startswith(_SHARED):
            return response
        headers = [] if self._allows_any else [("vary", "Origin")]
        origins = scope.headers.get_all("origin")
        if len(origins) == 1 and (self._allows_any or origins[0] in self._origins):
            headers.append(("access-control-allow-origin", "*" if self._allows_any else origins[0]))
            if scope.method == "OPTIONS" and "access-control-request-method" in scope.headers:
                headers += _preflight(response)
            else:
                headers.append(("access-control-expose-headers", _SHOWN))
        return replace(response, headers=[*response.headers, *headers])


def _preflight(response: Response) -> list[tuple[str, str]]:
    """Return what a browser may send to a path whose answer to OPTIONS is *response*."""
    methods = next((value for name, value in response.headers if name == "allow"), "")
    return [
        ("access-control-allow-methods", methods),
        ("access-control-allow-headers", _SENT),
        ("access-control-max-age", str(_MAX_AGE_S)),
    ]
