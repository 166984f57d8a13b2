"""`hopgate doctor`: what is reachable, what is not, and what to do."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from app.bootstrap import check_urls, open_bus, open_cache, open_store
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
    """
    Look at every dependency; takes a few seconds at most.

    Raises:
        SettingsError: a URL that cannot be read.
    """
    await check_urls(settings)
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
    if not settings.embedded:
        findings.append(await asyncio.to_thread(_breakers, settings))
    return findings


def _breakers(settings: Settings) -> Finding:
    """Ask the gateway on this machine how its circuit breakers stand; they are its own, not ours."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, settings.port, timeout=ADMIN_S)
    try:
        connection.request("GET", "/readyz")
        states = json.loads(connection.getresponse().read())["breakers"]
        bad = [f"{name} is {state.replace('_', '-')}" for name, state in states.items() if state != "closed"]
        is_open = "open" in states.values()
    except (OSError, http.client.HTTPException):
        detail = f"no gateway answers on {settings.bind}, so there are none to show"
        return Finding("breakers", healthy=True, detail=detail)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Finding("breakers", healthy=True, detail=f"what answers on {settings.bind} is no gateway")
    finally:
        connection.close()
    remedy = "what it guards failed or was slow a moment ago; it is tried again within seconds"
    return Finding("breakers", not is_open, ", ".join(bad) or "all closed", remedy if is_open else "")


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
