"""
Live numbers: while a page is open, a stream of server-sent events has the figures that have changed.

The figures are those of the page, from the same query. All streams of the same figures share one poll, which
the store gets once a second at most, and later if it takes long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar, assert_never

import msgspec

from app.concurrency.actors import reach
from app.concurrency.single_flight import SingleFlight
from app.concurrency.time_limit import within
from app.console import link
from app.console.gate import Gate
from app.console.numbers import Visits, numbers_of, visits_of
from app.console.rendering import Pages, Viewer
from app.domain.errors import Overloaded, Unavailable
from app.domain.link import Link
from app.domain.reach import EVERYTHING, Reach
from app.resilience.admission import AdmissionController, WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.keys import Scope
from app.service.stats import HourlyStats
from app.web import errors
from app.web.event_streams import HEADERS, RETRY_MS, TICK_S, End, OpenStreams
from app.web.middleware import ApiMiddleware, Call
from app.web.response import SECURITY_HEADERS, Response
from app.web.robyn_app import Router
from app.web.services import Services

LINK, ALL = "/console/link/live", "/console/live"
# Streams of one session in one process: pages that are hidden have none.
MOST_EACH = 8
POLL_S = 1.0
# A poll that takes long comes less often: the pause after it is so many times as long.
_PAUSE = 9
# A client that is gone is noticed when something is sent to it.
_HEARTBEAT_S = 3.0
# What no stream has asked for since then is forgotten.
_KEPT_S = 30.0
_HEADERS = [*HEADERS, *SECURITY_HEADERS]

K = TypeVar("K")
V = TypeVar("V")


class Polls(Generic[K, V]):
    """
    Asks for figures on behalf of all their readers. Belongs to one event loop.

    A poll is work of the kind that is shed first, and nothing of the context of a reader is in it.
    """

    def __init__(self, admission: AdmissionController, *, monotonic: Callable[[], float]) -> None:
        self._admission = admission
        self._monotonic = monotonic
        self._asking: SingleFlight[K, V | None] = SingleFlight()
        # What was found last, and when to ask again.
        self._kept: dict[K, tuple[V | None, float]] = {}

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V | None:
        """
        Return what *ask* finds for *key*, at most `POLL_S` old, or ten times as old as asking takes.

        If it cannot be asked now: what was found before; None without that.
        """
        kept = self._kept.get(key)
        if kept is not None and self._monotonic() < kept[1]:
            return kept[0]
        return await self._asking.do(key, partial(self._ask, key, ask))

    async def _ask(self, key: K, ask: Callable[[], Awaitable[V]]) -> V | None:
        began = self._monotonic()
        found = self._kept[key][0] if key in self._kept else None
        with suppress(Overloaded, Unavailable, TimeoutError):
            found = await self._admitted(ask)
        now = self._monotonic()
        self._kept[key] = (found, max(began + POLL_S, now + _PAUSE * (now - began)))
        for one in [one for one, (_, until) in self._kept.items() if until + _KEPT_S < now]:
            del self._kept[one]
        return found

    async def _admitted(self, ask: Callable[[], Awaitable[V]]) -> V:
        entered, succeeded = self._admission.enter(WorkKind.LIST), False
        try:
            async with within(ADMIN_S):
                found = await ask()
            succeeded = True
            return found
        finally:
            self._admission.leave(WorkKind.LIST, entered, succeeded=succeeded)


@dataclass(frozen=True, slots=True)
class Reading:
    """Figures as a page shows them, by name, in JSON; and the link that they are of, if not of all links."""

    figures: bytes
    link: Link | None = None

    def is_within(self, reach: Reach) -> bool:
        """Return whether a key with this *reach* may see it: figures of all links are for no other."""
        return reach == EVERYTHING if self.link is None else reach.holds(self.link)


class _Gone:
    """There is no such link, or not any more."""


Ask = Callable[[], Awaitable[Reading | _Gone]]


@dataclass(frozen=True, slots=True)
class _Reader:
    """The session that a stream is for, what it may see, and what ends the stream."""

    holder: bytes | None
    reach: Reach
    end: Callable[[], Awaitable[End | None]]


def register(
    app: Router,
    gate: Gate,
    middleware: ApiMiddleware,
    pages: Pages,
    services: Services,
    *,
    clock: Callable[[], datetime],
) -> None:
    """Declare the streams on *app*."""
    streams = _Streams(gate, middleware, services)

    def shown(visits: Visits, **counts: int) -> bytes:
        parts = {name: getattr(visits, name) for name in ("people", "visitors", "bots", "others")}
        return msgspec.json.encode({name: pages.number(count) for name, count in {**parts, **counts}.items()})

    @app.get(LINK)
    @gate.page(Scope.STATS_READ, deadline_s=ADMIN_S)
    async def follow_link(call: Call[Any], viewer: Viewer) -> Response:
        del viewer
        query = call.request.query
        key, wanted = await link.key_of(query, services.domains), link.range_of(query)
        if key is None:
            return errors.not_found()

        async def ask() -> Reading | _Gone:
            counted = await services.stats.hourly(key, since=clock() - link.RANGES[wanted])
            if not isinstance(counted, HourlyStats):
                return _Gone()
            found = numbers_of(counted, pages.texts)
            return Reading(shown(found.visits, total=found.total, clicks=found.clicks), counted.link)

        return await streams.started(call, Scope.STATS_READ, (key, wanted), ask)

    @app.get(ALL)
    @gate.page(Scope.LINKS_READ, deadline_s=ADMIN_S)
    async def follow_all(call: Call[Any], viewer: Viewer) -> Response:
        del viewer
        if reach() != EVERYTHING:
            return errors.not_found()

        async def ask() -> Reading:
            totals = await services.listings.totals()
            visits = visits_of((await services.stats.overall()).visits, pages.texts)
            counts = {} if totals is None else {"links": totals.links, "total": totals.clicks}
            return Reading(shown(visits, **counts))

        return await streams.started(call, Scope.LINKS_READ, None, ask)


class _Streams:
    """The streams of this process."""

    def __init__(self, gate: Gate, middleware: ApiMiddleware, services: Services) -> None:
        self._gate = gate
        most, is_draining = services.event_streams, services.is_draining
        self._open = OpenStreams(middleware, is_draining, most=most, most_each=MOST_EACH)
        self._polls: Polls[object, Reading | _Gone] = Polls(services.admission, monotonic=monotonic)

    async def started(self, call: Call[Any], scope: Scope, key: object, ask: Ask) -> Response:
        """Return a stream of what *ask* finds, under *key*, for a session that may see it."""
        session = self._gate.cookie.read(call.request)
        end = self._open.watch(scope, self._gate.credential(call.request))
        reader = _Reader(None if session is None else session.hash, reach(), end)
        if self._open.are_full(reader.holder):
            return errors.overloaded()
        first = await self._polls.get(key, ask)
        if first is None:
            return errors.overloaded()
        if isinstance(first, _Gone) or not first.is_within(reader.reach):
            return errors.not_found()
        if call.request.method == "HEAD":
            return Response(200, _HEADERS)
        return Response(200, _HEADERS, stream=self._stream(reader, first, key, ask))

    async def _stream(
        self, reader: _Reader, shown: Reading, key: object, ask: Ask
    ) -> AsyncGenerator[bytes, None]:
        with self._open.place(reader.holder):
            yield b"retry: %d\n%b" % (RETRY_MS, _message(shown))
            sent_at = monotonic()
            while (ended := await reader.end()) is None:
                found = await self._polls.get(key, ask) or shown
                if isinstance(found, _Gone) or not found.is_within(reader.reach):
                    ended = End.LAPSED
                    break
                if found.figures != shown.figures:
                    yield _message(found)
                    shown, sent_at = found, monotonic()
                elif monotonic() - sent_at >= _HEARTBEAT_S:
                    yield b":\n\n"
                    sent_at = monotonic()
                await asyncio.sleep(TICK_S)
            match ended:
                case End.DRAINING:
                    pass  # the browser connects again, to another gateway or to the next process
                case End.LAPSED:
                    yield b"event: over\ndata: {}\n\n"
                case _:
                    assert_never(ended)


def _message(reading: Reading) -> bytes:
    return b"event: figures\ndata: %b\n\n" % reading.figures
