"""
The same Robyn application on Robyn's own server.

Usage: python -m bench.servers.robyn_own PORT
"""

from __future__ import annotations

import sys
from typing import Any

from app import settings as environment
from app.bootstrap import open_gateway
from app.web.robyn_compat import new_application
from app.web.routes import register


class _LateServices:
    """Services that are opened by the server's own event loop, after the routes were declared."""

    def __init__(self) -> None:
        self._gateway = open_gateway(environment.load())
        self._opened: Any = None

    async def open(self) -> None:
        self._opened = await self._gateway.__aenter__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


def main() -> None:
    """Serve until killed: this server does not stop for SIGTERM."""
    services: Any = _LateServices()
    application = new_application()
    register(application, services)
    application.startup_handler(services.open)
    application.start(host="127.0.0.1", port=int(sys.argv[1]), _check_port=False)


if __name__ == "__main__":
    main()
