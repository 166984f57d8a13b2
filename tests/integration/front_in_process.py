"""The front, and what it asks, in this process: all of a gateway but granian and the API."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from app.adapters.memory.bus import InProcessBus
from app.adapters.memory.cache import MemoryCache
from app.adapters.native_limiter import NativeRateLimiter
from app.domain.link import LinkFields
from app.resilience.admission import AdmissionController
from app.service.clicks import ClickCounter
from app.service.l1_cache import BOUNDS, L1Bounds
from app.service.links import Links, leave_to_relay
from app.service.resolver import Resolver
from app.service.visit_quota import VisitQuota
from app.telemetry.requests import RequestMetrics
from app.web import errors
from app.web.front import FrontMetrics
from app.web.front_misses import FrontMisses
from app.web.native_l1 import NativeL1Cache
from app.web.pages import load
from app.web.redirects import RedirectHandler, render
from app.web.response import Response
from tests.conftest import NOW
from tests.contract.l1_caches import LIMITS, alone
from tests.servers.raw_http import RawAnswer, exchange
from tests.unit.services import CountingStore

TARGET = "https://example.com/"


class AloneFront:
    """Serves the links of *store* on `port`, from the running event loop."""

    def __init__(self, store: CountingStore, bounds: L1Bounds = BOUNDS) -> None:
        pages = load("en")
        limiter = NativeRateLimiter(LIMITS)
        self.front = alone(limiter, pages=pages, bounds=bounds)
        self.store, self.cache = store, MemoryCache()
        self.admission = AdmissionController(monotonic=time.monotonic)
        self.clicks = ClickCounter()
        self.errors: list[Exception] = []
        self.l1 = NativeL1Cache(
            self.front,
            render,
            monotonic=time.monotonic,
            wall=time.time,
            clicked=self.clicks.count,
        )
        self.resolver = Resolver(self.l1, self.cache, store, InProcessBus(), self.admission)
        self.quota = VisitQuota(store, monotonic=time.monotonic, leases=self.front)
        self.redirects = RedirectHandler(
            self.l1,
            self.resolver,
            limiter,
            self.clicks,
            self.quota,
            monotonic=time.monotonic,
            on_error=self.errors.append,
        )
        self.misses = FrontMisses(self.front, self.redirects, self._failed, pages=pages)
        self.metrics = FrontMetrics(self.front, RequestMetrics(), self.redirects)
        self._loop = asyncio.get_running_loop()
        self._visitors = ThreadPoolExecutor(64)

    @contextmanager
    def serving(self) -> Iterator[AloneFront]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listener.getsockname()[1]
        self.misses.open(self._loop)
        self.front.start([listener.detach()])
        try:
            yield self
        finally:
            self.front.end()
            self.misses.close(self._loop)
            self._visitors.shutdown()

    async def create(self, slug: str, **fields: object) -> None:
        links = Links(self.store, leave_to_relay, clock=lambda: NOW, choice=lambda _: "x", own_hosts=())
        await links.create(LinkFields(**{"long_url": TARGET, **fields}), custom_slug=slug)  # type: ignore[arg-type]

    def get(self, slug: str, *headers: str, method: str = "GET") -> RawAnswer:
        """Ask for *slug*; not from the event loop."""
        lines = [f"{method} /{slug} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
        answer = exchange(self.port, "\r\n".join(lines).encode())
        assert answer is not None
        return answer

    def ask(self, *slugs: str) -> asyncio.Future[list[RawAnswer]]:
        """Begin to ask for *slugs*, each from a thread of its own."""
        asked = (self._loop.run_in_executor(self._visitors, self.get, slug) for slug in slugs)
        return asyncio.gather(*asked)

    async def until_awaited(self, slug: str, requests: int) -> None:
        """Return when as many *requests* wait for *slug*."""
        while self.front.awaited([slug]) != [requests]:
            await asyncio.sleep(0.001)

    def blocking(self, slug: str, *headers: str) -> list[RawAnswer]:
        """Ask for *slug*, and block the event loop until there is an answer."""
        answers: list[RawAnswer] = []
        thread = threading.Thread(target=lambda: answers.append(self.get(slug, *headers)))
        thread.start()
        thread.join()
        return answers

    def _failed(self, what: str, error: Exception) -> Response:
        self.errors.append(error)
        return errors.server_error(what)
