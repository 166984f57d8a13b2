"""The gateway without its redirect lane: every redirect goes through the Robyn handler."""

from __future__ import annotations

from app import settings as environment
from app.bootstrap import open_gateway
from app.web.rsgi import RsgiApplication


def create() -> RsgiApplication:
    settings = environment.load()
    return RsgiApplication(lambda: open_gateway(settings), with_lane=False)
