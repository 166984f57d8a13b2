"""What granian loads in each worker: settings → bootstrap → RSGI application."""

from __future__ import annotations

from app import settings as environment
from app.bootstrap import open_gateway
from app.telemetry import logs
from app.web.mount import Mounted
from app.web.rsgi import RsgiApplication


def create() -> RsgiApplication | Mounted:
    """Make the application; its services are opened when the worker starts."""
    settings = environment.load()
    logs.configure(settings.log_level)
    application = RsgiApplication(lambda: open_gateway(settings))
    return Mounted(application, settings.base_path) if settings.base_path else application
