"""Serves an application behind the front: its requests as the clients sent them, and its start and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from hopgate_front import Front

from app.domain.errors import SettingsError
from app.resilience.deadline import FRONT_DRAIN_S
from app.web import errors
from app.web import headers as fields
from app.web.certificates import Certificates
from app.web.front_misses import FrontMisses
from app.web.front_records import LookUpOrigins, read_noted
from app.web.rsgi import RsgiApplication
from app.web.scope import RsgiScope

log = logging.getLogger(__name__)

# Names the peer of the public connection, as granian's `client` does. Clients cannot send these.
_PEER = "x-hopgate-peer"
# What the front has decided about the request, if it reports single ones.
_NOTED = "x-hopgate-noted"
_BACKLOG = 4096


class Fronted:
    """
    What granian serves behind a front.

    Starts the front once the event loop runs. SIGTERM and SIGINT end the front first, and granian when the
    last request that the front has passed on is answered.

    Args:
        application: answers what the front passes on.
        inner: *application*, or what it wraps; has the services.
        listeners: descriptors of the public sockets.
        certificates: read again on SIGHUP.
    """

    def __init__(
        self,
        application: Any,
        inner: RsgiApplication,
        listeners: Sequence[int],
        *,
        certificates: Certificates | None = None,
        drain_s: float = FRONT_DRAIN_S,
    ) -> None:
        self._application = application
        self._inner = inner
        self._listeners = listeners
        self._certificates = certificates
        self._drain_s = drain_s
        self._draining: asyncio.Task[None] | None = None
        self._front: Front
        self._misses: FrontMisses

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the application; start the front when the loop runs."""
        self._application.__rsgi_init__(loop)
        front = self._inner.services.front
        if front is None:
            raise TypeError("the services have no front")
        self._front = front
        # granian has set its handlers of both signals. SIGINT remains granian's: `hopgate serve` blocks it
        # before the fork, so it comes to no handler, but to a thread that waits for it.
        loop.add_signal_handler(signal.SIGTERM, self._stop, loop)
        if self._certificates is not None:
            loop.add_signal_handler(signal.SIGHUP, self._renew, self._certificates)
            # A SIGHUP that came since they were read had no handler.
            self._secure(self._certificates)
        services = self._inner.services
        is_traced = services.tracing is not None
        origins = LookUpOrigins(front, monotonic=time.monotonic, wall=time.time) if is_traced else None
        self._misses = FrontMisses(front, services.redirects, self._inner.failed, origins, services.pages)
        loop.call_soon(self._start, loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the front, then the application, which takes its last clicks and counts."""
        self._misses.close(loop)
        self._front.end()
        self._application.__rsgi_del__(loop)

    async def __rsgi__(self, scope: RsgiScope, protocol: Any) -> None:
        """Answer one HTTP request that the front has passed on."""
        await self._application.__rsgi__(_FromFront(scope), protocol)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._misses.open(loop)
        for listener in self._listeners:
            public = socket.socket(fileno=listener)
            # Not before: a connection would be accepted that is not served if the application does not open.
            public.listen(_BACKLOG)
            public.detach()
        try:
            self._front.start(self._listeners)
        except OSError as error:
            # Without it nothing is served: the parent starts another process.
            log.critical("the front cannot start: %s", error)
            raise SystemExit(1) from error
        log.info("the front is on: it answers redirects, by %d of its threads", len(self._listeners))
        threading.Thread(target=self._await_interrupt, args=(loop,), name="interrupt", daemon=True).start()

    def _await_interrupt(self, loop: asyncio.AbstractEventLoop) -> None:
        signal.sigwait({signal.SIGINT})
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(self._stop, loop)

    def _renew(self, certificates: Certificates) -> None:
        if self._secure(certificates):
            log.info("new connections use the certificates in %s", certificates.chain)

    def _secure(self, certificates: Certificates) -> bool:
        try:
            certificates.secure(self._front)
        except SettingsError as error:
            log.error("the certificates stay as they were: %s", error)  # noqa: TRY400 one line says it all
            return False
        return True

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._draining is None:
            self._draining = loop.create_task(self._drain())

    async def _drain(self) -> None:
        if not await asyncio.to_thread(self._front.drain, self._drain_s):
            log.warning("the front closes %d connections that are still in use", self._front.connections)
        # Now granian's turn. To this thread alone: the one that waits would take it.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class CheckedApplication(RsgiApplication):
    """The bridge behind a front. It checks every host; the fast path of redirects does not."""

    is_fronted = True

    async def __rsgi__(self, scope: RsgiScope, protocol: Any) -> None:
        """Answer one HTTP request."""
        try:
            fields.check_host(scope.headers, scope.http_version)
        except ValueError as error:
            self._refuse(scope, protocol, errors.unreadable(str(error)))
            return
        await super().__rsgi__(scope, protocol)


class _FromFront:
    """A request as the client sent it to the front."""

    def __init__(self, scope: RsgiScope) -> None:
        self._scope = scope
        self.headers = scope.headers
        self.client: str = self.headers.get(_PEER) or ""
        noted = self.headers.get(_NOTED)
        self.noted = read_noted(noted) if noted else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scope, name)
