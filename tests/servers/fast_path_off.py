"""The gateway without its redirect fast path: every redirect goes through its route."""

from __future__ import annotations

from app import settings as environment
from app.bootstrap import open_gateway
from app.web.rsgi import RsgiApplication


def create() -> RsgiApplication:
    settings = environment.load()
    return RsgiApplication(lambda: open_gateway(settings), with_fast_path=False)
