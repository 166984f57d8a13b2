"""What granian loads in each worker: settings → bootstrap → RSGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app import settings as environment
from app.bootstrap import open_gateway, tracing
from app.bootstrap.front_records import new_access_log
from app.telemetry import logs
from app.web.mount import Mounted
from app.web.rsgi import RsgiApplication, layered

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
    from app.web.certificates import Certificates
    from app.web.fronted import Fronted

    return Fronted(mounted, application, settings.front_listeners, certificates=Certificates.of(settings))


def _application(settings: environment.Settings) -> RsgiApplication:
    """Choose the layers of the bridge once: what is off costs a request nothing."""
    layers: list[type[RsgiApplication]] = []
    options: dict[str, Any] = {}
    asked = tracing.installed()
    if asked is not None:
        from app.web.traced import TracedApplication, server_attributes

        # Spans are outermost, so that whatever it logs has their ids.
        layers.append(TracedApplication)
        options["sampling"] = asked.sampling
        options["slow_s"] = settings.trace_slow_ms / 1000
        options["server"] = server_attributes(settings.public_url)
    access_log = new_access_log(settings)
    if access_log is not None:
        from app.web.logged import LoggedApplication

        layers.append(LoggedApplication)
        options["access_log"] = access_log
    if settings.allowed_origins:
        from app.web.shared import SharedApplication

        layers.append(SharedApplication)
        options["origins"] = settings.allowed_origins
    if settings.front_socket is not None:
        from app.web.fronted import CheckedApplication

        layers.append(CheckedApplication)
    return layered(*layers)(lambda: open_gateway(settings), **options)
