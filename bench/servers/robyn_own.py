"""
The same Robyn application on Robyn's own server.

Usage: python -m bench.servers.robyn_own PORT
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from app import settings as environment
from app.bootstrap import open_gateway
from app.settings import Settings
from app.web.robyn_app import new_application
from app.web.routes import register
from app.web.services import Services


class _Late:
    """Stands for one service until it is opened: attributes are looked up when they are used."""

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)


class _LateServices:
    """Services that the event loop of the server opens, after the routes are declared."""

    def __init__(self, settings: Settings) -> None:
        # Values that are read when routes are declared.
        self.public_url = settings.public_url
        self.dialects = settings.spoken_dialects
        self.event_streams = settings.event_streams
        self.console = None
        self._gateway = open_gateway(settings)
        self._opened: Services | None = None

    async def open(self) -> None:
        self._opened = await self._gateway.__aenter__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name) if self._opened else _Late(lambda: getattr(self._opened, name))


def main() -> None:
    """Serve until killed: this server ignores SIGTERM."""
    services: Any = _LateServices(environment.load())
    application = new_application()
    register(application, services)
    application.startup_handler(services.open)
    application.start(host="127.0.0.1", port=int(sys.argv[1]), _check_port=False)


if __name__ == "__main__":
    main()
