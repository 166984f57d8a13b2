"""A gateway that has too much to do, whatever it is asked."""

from __future__ import annotations

from app import settings as environment
from app.bootstrap import open_gateway
from app.resilience.admission import Admission
from app.web.rsgi import RsgiApplication


def create() -> RsgiApplication:
    """Make the application; every admission is refused."""
    Admission.refuses = lambda *_: True  # type: ignore[method-assign]
    return RsgiApplication(lambda: open_gateway(environment.load()))
