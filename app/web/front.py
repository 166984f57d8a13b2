"""
The front: the native data plane that answers hot redirects, in front of this application.

It owns the public sockets. It sends what `FrontTable` holds, and passes every other request on to granian,
which serves the application on a private Unix socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hopgate_front import Front, Limit, Template, Watch

from app.concurrency import tarpit
from app.concurrency.origins import on_behalf_of
from app.domain.errors import Unavailable
from app.domain.link import REDIRECT_CODES, Resolution, Slug
from app.domain.slug import RESERVED
from app.ports import Refusal
from app.resilience.deadline import FRONT_ANSWER_S
from app.settings import IpNetwork
from app.telemetry.families import HTTP_SECONDS
from app.telemetry.requests import REDIRECT_ROUTE, RequestMetrics
from app.telemetry.samples import Samples
from app.telemetry.sources import front_samples
from app.web import errors
from app.web.body import MAX_BODY_BYTES
from app.web.front_records import LookUpOrigins
from app.web.redirects import RedirectHandler, render
from app.web.response import Response

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """
    What the connections of a front may take.

    Attributes:
        head_s: for the head of a request, and of idleness.
        write_s: for which a client may keep an answer waiting.
        answer_s: for the application to begin an answer, and to go on with it.
        connections: at a time; further ones wait in the queue of their socket.
    """

    head_s: float = 5.0
    write_s: float = 10.0
    answer_s: float = FRONT_ANSWER_S
    # Hopgate sheds load itself: as for granian, this must not be reached first.
    connections: int = 16_384


class FrontTable:
    """The table of a front, for `app.service.l1_cache.L1Cache`."""

    def __init__(self, front: Front) -> None:
        self.remove = front.remove
        self.clear = front.clear
        self._put = front.put
        self._take_clicks = front.take_clicks

    def put(self, slug: Slug, answer: Response, free_until: float) -> None:
        """Send *answer* for *slug* until *free_until*."""
        # `render` puts the target first.
        location = answer.headers[0][1] if answer.is_visit else None
        self._put(slug, answer.status, location, free_until, answer.forward_query)

    def take_clicks(self) -> Iterable[tuple[Slug, int]]:
        """Return the redirects sent since the last call, by slug."""
        return [(Slug(slug), clicks) for slug, clicks in self._take_clicks()]


class FrontMetrics:
    """Moves what a front has counted to where the application counts the same."""

    def __init__(self, front: Front, requests: RequestMetrics, redirects: RedirectHandler) -> None:
        self._front = front
        self._requests = requests
        self._redirects = redirects
        self._missed = self._readmitted = 0

    def samples(self) -> Samples:
        """Move the counts, so ask before the application; report the front's own."""
        front, redirects = self._front, self._redirects
        for status, counts, seconds in front.take_answers():
            self._requests.add(REDIRECT_ROUTE, "GET", status, counts, seconds)
        for status, count in front.take_errors():
            redirects.l1_errors[status] += count
        for status, count in front.take_looked_up():
            redirects.answered[status] += count
        missed, readmitted = front.missed
        redirects.missed += missed - self._missed
        redirects.readmitted += readmitted - self._readmitted
        self._missed, self._readmitted = missed, readmitted
        return front_samples(front)


class FrontLookUps:
    """
    Looks up the slugs that a front has no answer for: one call of the event loop for all that wait.

    A look-up fills the L1 cache, and with it the front's table. The front answers from that, or passes the
    request on: errors, stale answers and visit quotas are the application's.

    Args:
        origins: finds the traces that look-ups are a part of; None if there are none.
    """

    def __init__(self, front: Front, redirects: RedirectHandler, origins: LookUpOrigins | None) -> None:
        self._front = front
        self._look_up = redirects.look_up
        self._origins = origins

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take slugs from now on."""
        loop.add_reader(self._front.look_up(is_open=True), self._take)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take no more."""
        loop.remove_reader(self._front.look_up(is_open=False))

    def _take(self) -> None:
        slugs = self._front.take_misses()
        origins = {} if self._origins is None else self._origins.of(slugs)
        for slug in slugs:
            waiting = _Requests(self._front, slug)
            try:
                if slug in origins:
                    with on_behalf_of(origins[slug]):
                        self._look_up(Slug(slug), waiting)
                else:
                    self._look_up(Slug(slug), waiting)
            except Exception as error:
                # A bug. The application answers, and reports it again; all later visitors would wait in vain.
                log.exception("unexpected failure of a look-up")
                waiting.set_exception(error)


class _Requests:
    """The requests of a front that wait for one slug."""

    __slots__ = ("_front", "_slug")

    def __init__(self, front: Front, slug: str) -> None:
        self._front = front
        self._slug = slug

    def done(self) -> bool:
        return not self._front.is_awaited(self._slug)

    def set_result(self, _answer: Response) -> None:
        self._front.resolved(self._slug)

    def set_exception(self, _error: Exception) -> None:
        self._front.resolved(self._slug)


async def ping(private: Path) -> None:
    """
    Return if the front can reach its application by new connections, through the socket *private*.

    Raises:
        Unavailable: it cannot.
    """
    if not await asyncio.to_thread(private.is_socket):
        raise Unavailable("the front", f"{private} has been removed: restart this gateway")


def new_front(
    upstream: Path,
    *,
    redirect_limit: Limit,
    not_found_limit: Limit,
    trusted: Sequence[IpNetwork],
    base_path: str,
    monotonic: Callable[[], float],
    caps: Caps = Caps(),
    watch: Watch | None = None,
) -> Front:
    """
    Return a front that answers as this application does, without its threads.

    Args:
        upstream: the private socket that granian listens on.
        redirect_limit: the limiter's functions for `Policy.REDIRECT`.
        not_found_limit: likewise for `Policy.NOT_FOUND`.
        trusted: networks of trusted proxies.
        base_path: the path of the base URL.
        monotonic: the clock of the L1 cache.
        caps: of its connections.
        watch: what is reported of single requests; see `app.web.front_records`.
    """
    away = Unavailable("the gateway", "its application did not answer")
    return Front(
        upstream=upstream,
        templates=[
            *map(_redirect, REDIRECT_CODES),
            _template(errors.not_found()),
            _template(errors.gone()),
            _without(errors.too_many_requests(Refusal(0, {})), "retry-after"),
            _template(errors.server_error("front")),
            _template(errors.unavailable(away)),
        ],
        cut_off=_template(errors.body_incomplete()),
        unsure=_template(errors.unavailable(away, may_have_written=True)),
        redirect_limit=redirect_limit,
        not_found_limit=not_found_limit,
        trusted=[str(network) for network in trusted],
        base_path=base_path,
        reserved=sorted(RESERVED),
        bounds=HTTP_SECONDS.bounds_of((REDIRECT_ROUTE,)),
        tarpit=(tarpit.FREE_PER_S, tarpit.BURST, tarpit.DELAY_S, tarpit.MAX_HELD),
        max_body=MAX_BODY_BYTES,
        caps=(caps.head_s, caps.write_s, caps.answer_s, caps.connections),
        monotonic=monotonic,
        watch=watch,
    )


def _redirect(code: int) -> Template:
    link = Resolution(Slug("any"), 1, "https://example.com/", redirect_code=code)
    return _without(render(link, 0.0), "location")


def _without(response: Response, name: str) -> Template:
    status, headers, body = _template(response)
    return status, [pair for pair in headers if pair[0] != name], body


def _template(response: Response) -> Template:
    return response.status, list(response.headers), response.body
