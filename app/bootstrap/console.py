"""The console, if it is on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from app.bootstrap.dependencies import utc_now
from app.ports import Store
from app.service.keys import Authenticator
from app.service.sessions import Sessions
from app.settings import Settings
from app.web.health import Readiness
from app.web.middleware import ApiMiddleware
from app.web.services import Services


def new_console(
    settings: Settings, store: Store, authenticator: Authenticator
) -> Callable[[Any, ApiMiddleware, Services, Readiness], None] | None:
    """Return what declares its routes; None if it is off."""
    if settings.console == "off":
        return None
    from app.console.routes import register

    sessions = Sessions(
        store,
        clock=utc_now,
        monotonic=time.monotonic,
        random=secrets.token_bytes,
        on_change=authenticator.forget,
    )
    return partial(
        register,
        sessions=sessions,
        language=settings.language,
        clock=utc_now,
        token=partial(secrets.token_hex, 16),
    )
