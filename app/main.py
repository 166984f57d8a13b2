"""What granian loads in each worker: settings → bootstrap → RSGI application."""

from __future__ import annotations

from app import settings as environment
from app.bootstrap import open_gateway, tracing
from app.telemetry import logs
from app.web.mount import Mounted
from app.web.rsgi import RsgiApplication


def create() -> RsgiApplication | Mounted:
    """Make the application; its services are opened when the worker starts."""
    settings = environment.load()
    logs.configure(settings.log_level)
    application = _application(settings)
    return Mounted(application, settings.base_path) if settings.base_path else application


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
