"""The data plane of a gateway process: its front, if it has one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from app.bootstrap.front_records import new_access_log, open_records
from app.bootstrap.tracing import Traces
from app.domain.domains import DomainIndex
from app.ports import Policy
from app.service.l1_cache import L1
from app.settings import Settings
from app.telemetry.metrics import Source
from app.telemetry.requests import RequestMetrics
from app.web.blocked import blocked_answer
from app.web.pages import Pages
from app.web.redirects import RedirectHandler
from app.web.response import Response

if TYPE_CHECKING:
    from hopgate_front import Front

    from app.adapters.native_limiter import NativeRateLimiter
    from app.web.health import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlane:
    """The front of a process, what makes its L1 cache, and what moves its counts to the other metrics."""

    front: Front
    l1: Callable[..., L1[Response]]
    set_domains: Callable[[DomainIndex], None]
    probe: Probe
    source: Callable[[RequestMetrics, RedirectHandler], Source]


@asynccontextmanager
async def open_data_plane(
    settings: Settings, limiter: NativeRateLimiter, traces: Traces, pages: Pages
) -> AsyncIterator[DataPlane | None]:
    """The front of a worker of `hopgate serve`, if it has one; it starts with the event loop."""
    if settings.front_socket is None:
        yield None
        return
    from app.web.certificates import Certificates
    from app.web.dialects import CHUNKED
    from app.web.front import FrontMetrics, new_front, ping, set_domains
    from app.web.front_records import watch
    from app.web.native_l1 import NativeL1Cache

    access_log = new_access_log(settings)
    front = new_front(
        settings.front_socket,
        redirect_limit=limiter.functions(Policy.REDIRECT),
        not_found_limit=limiter.functions(Policy.NOT_FOUND),
        trusted=settings.trusted_proxies,
        proxy_protocol=settings.proxy_protocol == "on",
        base_path=settings.base_path,
        blocked=blocked_answer(settings.public_url),
        monotonic=time.monotonic,
        pages=pages,
        chunked=[path for name, path in CHUNKED.items() if name in settings.spoken_dialects],
        describes_visits=settings.analytics == "on",
        watch=watch(traces.sampling, settings.trace_slow_ms / 1000, access_log),
    )
    async with open_records(settings, front, traces, access_log):
        try:
            certificates = Certificates.of(settings)
            if certificates is not None:
                certificates.secure(front)
            yield DataPlane(
                front=front,
                l1=partial(NativeL1Cache, front),
                set_domains=partial(set_domains, front),
                probe=partial(ping, settings.front_socket),
                source=lambda requests, redirects: FrontMetrics(front, requests, redirects).samples,
            )
        finally:
            front.end()
