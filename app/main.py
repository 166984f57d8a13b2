"""What granian loads in each worker: settings → bootstrap → RSGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    asked = tracing.installed()
    if asked is None:
        return RsgiApplication(lambda: open_gateway(settings))
    from app.web.traced import TracedApplication, server_attributes

    return TracedApplication(
        lambda: open_gateway(settings),
        sampling=asked.sampling,
        slow_s=settings.trace_slow_ms / 1000,
        server=server_attributes(settings.public_url),
    )
