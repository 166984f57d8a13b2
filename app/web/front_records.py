"""
What a front reports single requests: those that it answers become spans and lines of the access log here.

The front decides which requests have one, and keeps what is needed until it is taken: as many spans as a list
has room for, and some more lines. What did not fit is counted. A request that it passes on takes the decision
along. Both go where `app.web.traced` and `app.web.logged` send theirs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from app.domain.origin import Origin
from app.telemetry.requests import CANCELLED, REDIRECT_ROUTE, UNKNOWN_ROUTE
from app.web.client import network_of
from app.web.scope import Noted

if TYPE_CHECKING:
    from hopgate_front.types import Origin as Begun
    from hopgate_front.types import Record, Watch

    from app.settings.tracing import Sampling
    from app.telemetry.access_log import AccessLog
    from app.telemetry.tracing import Attributes, RequestKind, Tracing

log = logging.getLogger(__name__)

# The longest that a record waits.
PERIOD_S = 0.05
# What comes between two turns at the highest rate. Beyond it spans are dropped, and requests to be logged are
# passed on; one more line for each connection has room, such as that of a request that failed.
_CAPACITY = 8192
# In one turn of the event loop: some two milliseconds.
_AT_ONCE = 128


def read_noted(value: str) -> Noted:
    """Return what the private header *value* says."""
    trace, span, flags, began = value.split("-")
    bits = int(flags)
    return Noted(int(trace, 16), int(span, 16), bool(bits & 1), bool(bits & 2), bool(bits & 4), float(began))


def watch(sampling: Sampling | None, slow_s: float, access_log: AccessLog | None) -> Watch | None:
    """Return what a front has to report: None if nothing asks for single requests."""
    if sampling is None and access_log is None:
        return None
    traced = None if sampling is None else (sampling.bound, sampling.follows_parent, slow_s)
    return traced, None if access_log is None else access_log.bound, _CAPACITY


class Records(Protocol):
    """What a front hands out of single requests."""

    def take_records(self, limit: int, /) -> list[Record]:
        """Return the oldest requests that have ended, *limit* at most."""

    @property
    def records_dropped(self) -> tuple[int, int]:
        """How many spans, and lines, did not fit since the start."""


class Beginnings(Protocol):
    """What a front knows of recorded requests under way."""

    def origins(self, slugs: list[str], /) -> dict[str, Begun]:
        """Return those that wait for *slugs*, one of each."""


class FrontRecords:
    """
    Makes spans and lines of the records of *front*, off the path of requests. Belongs to one event loop.

    Args:
        tracing: makes the spans; None if there are none.
        access_log: writes the lines, likewise.
        server: what spans say of the server.
        monotonic: the clock of the front.
        wall: unix time in seconds.
    """

    def __init__(
        self,
        front: Records,
        tracing: Tracing | None,
        access_log: AccessLog | None,
        server: Attributes,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._front = front
        self._tracing = tracing
        self._access_log = access_log
        self._server = server
        self._monotonic = monotonic
        self._wall = wall
        # Few answers differ, and to put one together takes as long as the rest of a span.
        self._kinds: dict[Any, RequestKind] = {}
        self._dropped = 0, 0

    async def run(self) -> None:
        """Take records until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            while records := self._front.take_records(_AT_ONCE):
                self._take(records)
                await asyncio.sleep(0)
            self._count_dropped()

    async def aclose(self) -> None:
        """Take the last records: the front has ended."""
        while records := self._front.take_records(_AT_ONCE):
            self._take(records)
        self._count_dropped()

    def _count_dropped(self) -> None:
        spans, lines = self._front.records_dropped
        spans_before, lines_before = self._dropped
        if self._tracing is not None:
            self._tracing.omitted += spans - spans_before
        if lines > lines_before:
            log.warning("the access log lacks %d lines: they did not fit", lines - lines_before)
        self._dropped = spans, lines

    def _take(self, records: list[Record]) -> None:
        # Both clocks at one moment: a record has its time on that of the front.
        offset = self._wall() - self._monotonic()
        for record in records:
            _, _, (is_recorded, is_late, is_logged, *_), _, _ = record
            if self._tracing is not None and (is_recorded or is_late):
                self._trace(self._tracing, record, offset)
            if self._access_log is not None and is_logged:
                self._log(self._access_log, record, offset)

    def _trace(self, tracing: Tracing, record: Record, offset: float) -> None:
        ids, (began, took_s, status), whether, asked, _ = record
        _, is_late, _, is_missed, is_redirect = whether
        method, version = asked
        described = status, is_missed, is_redirect, method, version
        kind = self._kinds.get(described)
        if kind is None:
            kind = self._kinds[described] = self._kind(*described)
        tracing.past_request(kind, ids, began=began + offset, took_s=took_s, is_late=is_late)

    def _kind(
        self,
        status: int,
        is_missed: bool,  # noqa: FBT001 - a part of a key
        is_redirect: bool,  # noqa: FBT001 - likewise
        method: str,
        version: str,
    ) -> RequestKind:
        """Return name and attributes of spans, as `app.web.traced` has them."""
        from app.telemetry.tracing import RequestKind

        attributes = {
            "http.request.method": method,
            "network.protocol.version": version,
            **self._server,
            "url.path": "REDACTED",
        }
        if is_redirect:
            attributes["url.path"] = attributes["http.route"] = REDIRECT_ROUTE
            attributes["hopgate.l1"] = "miss" if is_missed else "hit"
        if status:
            attributes["http.response.status_code"] = status
        has_failed = status >= 500 or status == 0
        if has_failed:
            attributes["error.type"] = str(status) if status else "no_answer"
        verb = "HTTP" if method == "_OTHER" else method
        return RequestKind(f"{verb} {REDIRECT_ROUTE}" if is_redirect else verb, attributes, has_failed)

    def _log(self, access_log: AccessLog, record: Record, offset: float) -> None:
        (trace_id, span_id, _, _), (began, took_s, status), whether, (method, _), said = record
        is_recorded, is_redirect = whether[0], whether[-1]
        client, request_id = said
        access_log.write(
            {
                **({} if self._tracing is None else {"trace_id": f"{trace_id:032x}"}),
                **({"span_id": f"{span_id:016x}"} if is_recorded else {}),
                **({"request_id": request_id} if request_id else {}),
                "method": method,
                "route": REDIRECT_ROUTE if is_redirect else UNKNOWN_ROUTE,
                "status": status or CANCELLED,
                "duration_s": round(took_s, 6),
                "client": client if "/" in client else network_of(client),
            },
            at=began + took_s + offset,
        )


class LookUpOrigins:
    """Finds the recorded requests of a *front* whose look-ups are a part of their traces."""

    def __init__(
        self, front: Beginnings, *, monotonic: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._origins = front.origins
        self._monotonic = monotonic
        self._wall = wall

    def of(self, slugs: list[str]) -> dict[str, tuple[Origin, ...]]:
        """Return the origins of the look-ups of *slugs*, without those that have none."""
        found = self._origins(slugs)
        if not found:
            return {}
        offset = self._wall() - self._monotonic()
        return {
            slug: (Origin(trace_id, span_id, began + offset, tracestate, baggage),)
            for slug, (trace_id, span_id, began, tracestate, baggage) in found.items()
        }
