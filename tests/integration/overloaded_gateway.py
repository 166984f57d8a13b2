"""A gateway whose admission control refuses every request."""

from __future__ import annotations

from app import settings as environment
from app.bootstrap import open_gateway
from app.resilience.admission import AdmissionController
from app.web.rsgi import RsgiApplication


def create() -> RsgiApplication:
    """Create the application with an admission controller that refuses everything."""
    AdmissionController.refuses = lambda *_: True  # type: ignore[method-assign]
    return RsgiApplication(lambda: open_gateway(environment.load()))
