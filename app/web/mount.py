"""Serves an application below the path of the base URL, whether a proxy removes that path or not."""

from __future__ import annotations

import asyncio
from typing import Any

from app.web.rsgi import RsgiApplication
from app.web.scope import RsgiScope

# Proxies hide these by their path, so they have no second one.
_INTERNAL = frozenset({"/metrics", "/readyz", "/healthz", "/status"})


class Mounted:
    """
    What granian serves if the base URL has a path.

    A request below *base_path* is answered as if the path were not there. All others go through as they
    are: a proxy may have removed it.
    """

    def __init__(self, application: RsgiApplication, base_path: str) -> None:
        self._application = application
        self._prefix = f"{base_path}/"

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the application."""
        self._application.__rsgi_init__(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the application."""
        self._application.__rsgi_del__(loop)

    async def __rsgi__(self, scope: RsgiScope, protocol: Any) -> None:
        """Answer one HTTP request."""
        path = scope.path
        if path.startswith(self._prefix):
            rest = path[len(self._prefix) - 1 :]
            # A path that no route has: the application answers it in its own shape.
            scope = _Below(scope, rest if rest not in _INTERNAL else path)
        await self._application.__rsgi__(scope, protocol)


class _Below:
    """A request with another path."""

    __slots__ = ("_scope", "path")

    def __init__(self, scope: RsgiScope, path: str) -> None:
        self._scope = scope
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scope, name)
