"""`hopgate doctor`: what is reachable, what is not, and what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from app.bootstrap import open_bus, open_cache, open_store
from app.domain.errors import Unavailable
from app.resilience.deadline import ADMIN_S
from app.settings import Settings

_STUCK_S = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` is what to do if it is not healthy."""

    name: str
    healthy: bool
    detail: str
    remedy: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Look at every dependency; takes a few seconds at most."""
    findings: list[Finding] = []
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(open_store(settings))
            findings.append(await _probe("store", store.ping, _store_remedy(settings)))
        except Unavailable as error:
            findings.append(
                Finding("store", healthy=False, detail=error.reason, remedy=_store_remedy(settings))
            )
        if findings[0].healthy:
            depth = await store.outbox_depth()
            stuck = depth.rows > 0 and depth.oldest_s > _STUCK_S
            remedy = (
                "start a worker: hopgate worker"
                if not settings.embedded
                else "start the gateway: hopgate serve"
            )
            detail = f"{depth.rows} changes wait" + (
                f", the oldest for {depth.oldest_s:.0f} s" if depth.rows else ""
            )
            findings.append(Finding("outbox", not stuck, detail, remedy if stuck else ""))
        cache = await stack.enter_async_context(open_cache(settings))
        findings.append(await _probe("cache", cache.ping, "is Redis up, and is HOPGATE_REDIS_URL right?"))
        bus = await stack.enter_async_context(open_bus(settings))
        findings.append(await _probe("bus", bus.ping, "is RabbitMQ up, and is HOPGATE_AMQP_URL right?"))
    return findings


def _store_remedy(settings: Settings) -> str:
    if settings.embedded:
        return "run hopgate migrate, and see that HOPGATE_DATA_DIR is writable"
    return "is PostgreSQL up, is HOPGATE_DATABASE_URL right, was hopgate migrate run?"


async def _probe(name: str, ping: Callable[[], Awaitable[None]], remedy: str) -> Finding:
    """Ping until it answers: a connection may still be on its way."""
    started = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            async with asyncio.timeout(ADMIN_S):
                await ping()
        except (Unavailable, TimeoutError) as error:
            if time.monotonic() - started < ADMIN_S / 2:
                await asyncio.sleep(0.1)
                continue
            reason = error.reason if isinstance(error, Unavailable) else f"no answer within {ADMIN_S:g} s"
            return Finding(name, healthy=False, detail=reason, remedy=remedy)
        return Finding(name, healthy=True, detail=f"answers in {(time.monotonic() - asked) * 1000:.1f} ms")
