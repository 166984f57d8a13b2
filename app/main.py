"""What granian loads in each worker: settings → bootstrap → RSGI application."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from app import settings as environment
from app.bootstrap import open_gateway, tracing
from app.telemetry import logs
from app.web.mount import Mounted
from app.web.rsgi import RsgiApplication

if TYPE_CHECKING:
    from app.web.fronted import Fronted


def create() -> RsgiApplication | Mounted | Fronted:
    """Make the application; its services are opened when the worker starts."""
    settings = environment.load()
    logs.configure(settings.log_level)
    application = _application(settings)
    mounted = Mounted(application, settings.base_path) if settings.base_path else application
    if settings.front_socket is None:
        return mounted
    from app.web.fronted import Fronted

    return Fronted(mounted, application, settings.front_listeners)


def _application(settings: environment.Settings) -> RsgiApplication:
    """Choose the bridge once: what is off costs a request nothing."""
    bridge: type[RsgiApplication] = RsgiApplication
    options: dict[str, Any] = {}
    if settings.access_log_share > 0:
        from app.telemetry.access_log import AccessLog
        from app.web.logged import LoggedApplication

        bridge = LoggedApplication
        options["access_log"] = AccessLog(settings.access_log_share, random=random.random)
    asked = tracing.installed()
    if asked is None:
        return bridge(lambda: open_gateway(settings), **options)
    from app.web.traced import server_attributes, traced

    return traced(bridge)(
        lambda: open_gateway(settings),
        sampling=asked.sampling,
        slow_s=settings.trace_slow_ms / 1000,
        server=server_attributes(settings.public_url),
        **options,
    )
