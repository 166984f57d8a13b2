"""The bridge with an access log. Without one, granian serves the bridge itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic as monotonic_now
from typing import Any

from app.concurrency.origins import trace_id
from app.telemetry.access_log import AccessLog
from app.telemetry.requests import CANCELLED, METHODS, OTHER_METHOD, UNKNOWN_ROUTE
from app.web.client import network_of
from app.web.request_id import HEADER, given_request_id
from app.web.rsgi import RsgiApplication
from app.web.scope import Noted, RsgiScope
from app.web.watched import WatchedProtocol

# A handler failed beyond the last resort: the server answers by itself.
_FAILED = 500


class LoggedApplication(RsgiApplication):
    """
    What granian serves with the access log on. Its scope is read for requests that have a line alone.

    Args:
        access_log: which requests have a line.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        *args: Any,
        access_log: AccessLog,
        monotonic: Callable[[], float] = monotonic_now,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._access_log = access_log
        self._monotonic = monotonic

    async def __rsgi__(self, scope: RsgiScope, protocol: Any) -> None:
        """Answer one HTTP request."""
        watched = WatchedProtocol(protocol)
        noted: Noted | None = scope.noted if self.is_fronted else None
        began = self._monotonic() if noted is None else noted.began
        unanswered = _FAILED
        try:
            await super().__rsgi__(scope, watched)
        except asyncio.CancelledError:
            unanswered = CANCELLED
            raise
        finally:
            status = watched.status or unanswered
            decided = None if noted is None else noted.is_logged
            if self._access_log.takes(trace_id.get(), status, decided=decided):
                self._write(scope, watched, status, self._monotonic() - began)

    def _write(self, scope: RsgiScope, watched: WatchedProtocol, status: int, took_s: float) -> None:
        method = scope.method
        try:
            client = network_of(self._client(scope))
        except ValueError:  # the proxy sent what cannot be read; the answer is 400
            client = None
        returned = next((value for name, value in watched.headers if name == HEADER), None)
        request = returned or given_request_id(scope.headers)
        self._access_log.write(
            {
                **({"request_id": request} if request else {}),
                "method": method if method in METHODS else OTHER_METHOD,
                "route": self._template(scope) or UNKNOWN_ROUTE,
                "status": status,
                "duration_s": round(took_s, 6),
                "client": client,
            }
        )
