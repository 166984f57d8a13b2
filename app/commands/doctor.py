"""`hopgate doctor`: checks each dependency and suggests a remedy."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app import settings as environment
from app.bootstrap import check_settings, open_bus, open_cache, open_store, utc_now
from app.commands import running
from app.commands import shadowed as hidden
from app.commands.front_sockets import has_front
from app.commands.local import LocalConnection
from app.commands.serve import check_pages, settings_key
from app.domain.domains import DomainIndex
from app.domain.errors import SettingsError, Unavailable
from app.ports import OutboxDepth, Store
from app.resilience.deadline import ADMIN_S, CACHE_S, COMMAND_S, LOOKUP_S
from app.service.blocks import loaded
from app.settings import Settings

_STUCK_S = 30.0
# A relay pauses for a second at most.
_MOVES_S, _LOOK_S = 3.0, 0.25
# Short certificates live six days, and are renewed after half of that.
_RENEWED_BEFORE = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `remedy` is what the operator can do if it is not healthy."""

    name: str
    healthy: bool
    detail: str
    remedy: str = ""
    is_warning: bool = False

    @property
    def mark(self) -> str:
        """The first word of its line."""
        return "warn" if self.is_warning else "ok" if self.healthy else "BAD"


async def examine(settings: Settings) -> list[Finding]:
    """
    Check every dependency; takes a few seconds at most.

    Raises:
        SettingsError: a setting has a value that `hopgate serve` refuses.
    """
    await check_settings(settings)
    settings_key(settings)
    check_pages(settings)
    findings = [
        Finding("settings", healthy=True, detail=warning, is_warning=True)
        for warning in environment.warnings(settings)
    ]
    findings.append(_front(settings))
    if settings.tls_cert is not None:
        findings.append(_certificate(settings, utc_now()))
    async with AsyncExitStack() as stack:
        try:
            running.require_database(settings)
            store = await stack.enter_async_context(open_store(settings))
            findings.append(await _probe("store", store.ping, _store_remedy(settings), limit_s=LOOKUP_S))
        except Unavailable as error:
            remedy = _store_remedy(settings)
            findings.append(Finding("store", healthy=False, detail=error.reason, remedy=remedy))
        except running.NoDatabase as error:
            remedy = "start the gateway: hopgate serve"
            findings.append(Finding("store", healthy=False, detail=str(error), remedy=remedy))
        if findings[-1].healthy:
            findings += await _hidden(store, settings)
            findings.append(await _writes(store))
            findings.append(await _outbox(store, settings))
            findings.append(await _blocks(store))
        cache = await stack.enter_async_context(open_cache(settings))
        remedy = "is Redis up, and is HOPGATE_REDIS_URL right?"
        findings.append(await _probe("cache", cache.ping, remedy, limit_s=CACHE_S))
        bus = await stack.enter_async_context(open_bus(settings))
        findings.append(await _probe("bus", bus.ping, "is RabbitMQ up, and is HOPGATE_AMQP_URL right?"))
    if not settings.embedded:
        findings.append(await asyncio.to_thread(_breakers, settings))
    seen = await asyncio.to_thread(_store_of_gateway, settings)
    if seen is not None:
        findings.append(seen)
    return findings


def _certificate(settings: Settings, now: datetime) -> Finding:
    """Check the dates of the gateway's certificate."""
    from app.web.certificates import Certificates

    certificates = Certificates.of(settings)
    if certificates is None:
        raise TypeError("there are no certificates")
    start, until = certificates.valid()
    remedy = "renew it, then send SIGHUP to hopgate serve"
    if now < start:
        detail = f"is valid only from {start:%Y-%m-%d %H:%M} UTC"
        return Finding(
            "certificate", healthy=False, detail=detail, remedy="is the clock of this machine right?"
        )
    if now >= until:
        detail = f"has expired: it was valid until {until:%Y-%m-%d %H:%M} UTC"
        return Finding("certificate", healthy=False, detail=detail, remedy=remedy)
    is_late = until - now < _RENEWED_BEFORE
    detail = f"valid until {until:%Y-%m-%d %H:%M} UTC"
    return Finding(
        "certificate", healthy=True, detail=detail, remedy=remedy if is_late else "", is_warning=is_late
    )


def _front(settings: Settings) -> Finding:
    """Return whether gateways have the native data plane, and whether it can be loaded."""
    try:
        if not has_front(settings):
            return Finding("front", healthy=True, detail="off: Python answers redirects")
    except SettingsError as error:
        return Finding("front", healthy=False, detail=str(error))
    threads = settings.front_threads
    return Finding(
        "front", healthy=True, detail=f"on, {threads} thread{'s' * (threads > 1)} for each process"
    )


def _store_of_gateway(settings: Settings) -> Finding | None:
    """
    Return what the gateway on this machine says of its store, if that is bad.

    The file under an embedded gateway may be another than the one that this command opens.
    """
    try:
        state = _readiness(settings)["dependencies"]["store"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return None
    if state == "ok":
        return None
    remedy = "see the log of the gateway"
    return Finding("gateway", healthy=False, detail=f"its store: {state}", remedy=remedy)


def _readiness(settings: Settings) -> Any:
    connection = LocalConnection(settings, ADMIN_S)
    try:
        connection.request("GET", "/readyz")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


async def _hidden(store: Store, settings: Settings) -> list[Finding]:
    """Return a warning for each link that is hidden by a page of the service, and for such a domain."""
    warnings = [
        (hidden.described(slug), hidden.REMEDY) for slug in await hidden.shadowed(store, settings.public_url)
    ]
    domain = DomainIndex(settings.public_url, await store.domains()).hidden
    if domain is not None:
        detail = f"those of the domain {domain.host} are served nowhere: it is the host of the base URL"
        warnings.append((detail, "set HOPGATE_BASE_URL to what it was"))
    return [
        Finding("links", healthy=True, detail=detail, remedy=remedy, is_warning=True)
        for detail, remedy in warnings
    ]


async def _writes(store: Store) -> Finding:
    """Write to the store: a full disk, a read-only store or a lost permission shows in nothing else."""
    try:
        await store.try_write()
    except Unavailable as error:
        remedy = "free disk space, and check that the store may write: nothing is lost, and nothing is stored"
        return Finding("writes", healthy=False, detail=error.reason, remedy=remedy)
    return Finding("writes", healthy=True, detail="the store takes writes")


async def _outbox(store: Store, settings: Settings) -> Finding:
    """Examine the outbox: old rows are a fault unless some of them are being delivered."""
    try:
        depth = await store.outbox_depth()
        is_old = depth.rows > 0 and depth.oldest_s > _STUCK_S
        is_stalled = is_old and not await _moves(store, depth)
    except Unavailable as error:
        return Finding("outbox", healthy=False, detail=error.reason, remedy=_store_remedy(settings))
    detail = f"{depth.rows} changes pending"
    if depth.rows:
        detail += f", the oldest for {depth.oldest_s:.0f} s"
    if is_old:
        detail += "; none was delivered meanwhile" if is_stalled else "; they are being delivered"
    start = "start the gateway: hopgate serve" if settings.embedded else "start a worker: hopgate worker"
    return Finding("outbox", not is_stalled, detail, start if is_stalled else "")


async def _blocks(store: Store) -> Finding:
    """Count the blocks: what is blocked answers 451, which is no fault."""
    try:
        index = await loaded(store)
    except Unavailable as error:
        return Finding("blocks", healthy=False, detail=error.reason, remedy="run hopgate migrate")
    detail = f"{len(index.hosts):,} hosts and {len(index.slugs):,} slugs are blocked"
    return Finding("blocks", healthy=True, detail=detail)


async def _moves(store: Store, before: OutboxDepth) -> bool:
    """Watch the outbox for `_MOVES_S` seconds at most: does it shrink?"""
    end = time.monotonic() + _MOVES_S
    while time.monotonic() < end:
        await asyncio.sleep(_LOOK_S)
        if (await store.outbox_depth()).has_moved(before):
            return True
    return False


def _breakers(settings: Settings) -> Finding:
    """Read the circuit breakers of the gateway on this machine: each process has its own."""
    try:
        states = _readiness(settings)["breakers"]
        bad = [f"{name} is {state.replace('_', '-')}" for name, state in states.items() if state != "closed"]
        is_open = "open" in states.values()
    except (OSError, http.client.HTTPException):
        detail = f"not checked: no gateway answers on {settings.bind}"
        return Finding("breakers", healthy=True, detail=detail)
    except (ValueError, LookupError, TypeError, AttributeError):
        detail = f"not checked: the server on {settings.bind} is no gateway"
        return Finding("breakers", healthy=True, detail=detail)
    remedy = "calls to that dependency failed or were slow; the breaker probes it again within seconds"
    return Finding("breakers", not is_open, ", ".join(bad) or "all closed", remedy if is_open else "")


def _store_remedy(settings: Settings) -> str:
    if settings.embedded:
        return "run hopgate migrate, and check that HOPGATE_DATA_DIR is writable"
    return "is PostgreSQL up, is HOPGATE_DATABASE_URL right, was hopgate migrate run?"


async def _probe(
    name: str, ping: Callable[[], Awaitable[None]], remedy: str, limit_s: float | None = None
) -> Finding:
    """
    Ping until it succeeds, for at most `ADMIN_S`: a connection may still be opening.

    Then tell how long a second ping takes on that connection, with a warning if that is over *limit_s*.
    """
    started = time.monotonic()
    while True:
        try:
            async with asyncio.timeout(COMMAND_S):
                await ping()
                sent = time.monotonic()
                await ping()
        except (Unavailable, TimeoutError) as error:
            if time.monotonic() - started < ADMIN_S:
                await asyncio.sleep(0.1)
                continue
            reason = error.reason if isinstance(error, Unavailable) else f"no answer within {COMMAND_S:g} s"
            return Finding(name, healthy=False, detail=reason, remedy=remedy)
        took_s = time.monotonic() - sent
        detail = f"answers in {took_s * 1000:.1f} ms"
        if limit_s is None or took_s <= limit_s:
            return Finding(name, healthy=True, detail=detail)
        remedy = f"a redirect waits {limit_s * 1000:g} ms for it: are gateways nearer than this machine?"
        return Finding(name, healthy=True, detail=detail, remedy=remedy, is_warning=True)
