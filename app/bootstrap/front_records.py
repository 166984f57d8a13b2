"""What makes spans and lines of the access log of the requests that a front answers."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from app.bootstrap.tracing import Traces
from app.concurrency.background import serving
from app.settings import Settings
from app.telemetry.access_log import AccessLog

if TYPE_CHECKING:
    from hopgate_front import Front

    from app.telemetry.tracing import Attributes


def new_access_log(settings: Settings) -> AccessLog | None:
    """Return the access log; None if it is off."""
    share = settings.access_log_share
    return AccessLog(share, random=random.random) if share > 0 else None


@asynccontextmanager
async def open_records(
    settings: Settings, front: Front, traces: Traces, access_log: AccessLog | None
) -> AsyncIterator[None]:
    """Spans and lines of the requests that *front* answers, if there are any. Close it after the front."""
    if traces.tracing is None and access_log is None:
        yield
        return
    from app.web.front_records import FrontRecords

    server: Attributes = {}
    if traces.tracing is not None:
        from app.web.traced import server_attributes

        server = server_attributes(settings.public_url)
    records = FrontRecords(
        front, traces.tracing, access_log, server, monotonic=time.monotonic, wall=time.time
    )
    async with serving("records of the front", records):
        yield
