"""
The front: the native data plane that answers hot redirects, in front of this application.

It owns the public sockets, and answers every redirect: from its table, which is the L1 cache of the process
(`app.web.native_l1`) and which `app.web.front_misses` fills. It passes every other request on to granian,
which serves the application on a private Unix socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hopgate_front import Front
from msgspec.structs import replace

from app.concurrency import tarpit
from app.domain.domains import DomainIndex
from app.domain.errors import Unavailable
from app.domain.link import REDIRECT_CODES, Resolution, Slug
from app.domain.slug import RESERVED
from app.domain.visits import Look, Outcome
from app.ports import Refusal
from app.resilience.deadline import FRONT_ANSWER_S, REDIRECT_S
from app.service.l1_cache import BOUNDS, L1Bounds
from app.settings import IpNetwork
from app.telemetry.families import HTTP_SECONDS
from app.telemetry.requests import REDIRECT_ROUTE, RequestMetrics
from app.telemetry.samples import Samples
from app.telemetry.sources import front_samples
from app.web import bulk_api, errors, import_api, import_files
from app.web.body import MAX_BODY_BYTES
from app.web.intent import PREVIEW_STARTS, PREVIEW_WORDS
from app.web.pages import NO_PAGES, Pages
from app.web.redirects import RedirectHandler, render
from app.web.response import Response

if TYPE_CHECKING:
    from hopgate_front.types import Limit, Template, Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """
    What the connections of a front may take.

    Attributes:
        head_s: for the head of a request, and of idleness.
        write_s: for which a client may keep an answer waiting.
        answer_s: for the application to begin an answer, and to go on with it, once it has the whole body if
            that is a batch: it limits the time of one itself.
        connections: at a time; further ones wait in the queue of their socket.
    """

    head_s: float = 5.0
    write_s: float = 10.0
    answer_s: float = FRONT_ANSWER_S
    # Hopgate sheds load itself: as for granian, this must not be reached first.
    connections: int = 16_384


def set_domains(front: Front, domains: DomainIndex) -> None:
    """Have *front* look links up by *domains* from now on."""
    front.set_domains(
        [
            (
                "" if one.is_default else one.host,
                one.key(""),
                one.case_sensitive,
                domains.page(one, 410),
                one.has_segments,
            )
            for one in domains
        ]
    )


class FrontMetrics:
    """Moves what a front has counted to where the application counts the same."""

    def __init__(self, front: Front, requests: RequestMetrics, redirects: RedirectHandler) -> None:
        self._front = front
        self._requests = requests
        self._redirects = redirects

    def samples(self) -> Samples:
        """Move the counts, so ask before the application; report the front's own."""
        front, redirects = self._front, self._redirects
        for method, status, counts, seconds in front.take_answers():
            self._requests.add(REDIRECT_ROUTE, method, status, counts, seconds)
        for status, count in front.take_errors():
            redirects.l1_errors[status] += count
        for status, count in front.take_looked_up():
            redirects.answered[status] += count
        redirects.missed += front.take_missed()
        redirects.note_late(*front.take_late())
        return front_samples(front)


def looks(front: Front) -> tuple[Sequence[tuple[Look, int]], int]:
    """Return what visits that *front* answered looked like since the last call, and how many are left out."""
    kinds, dropped = front.take_visits()
    return [
        (
            Look(
                slug=Slug(slug),
                referrer=referrer,
                language=language,
                client=client,
                campaign=campaign,
                user_agent=agent,
                objects="o" in flags,
                is_ahead="a" in flags,
                outcome=_outcome(flags),
            ),
            visits,
        )
        for (slug, referrer, language, client, flags, campaign, agent), visits in kinds
    ], dropped


def _outcome(flags: str) -> Outcome:
    if "m" in flags:
        return Outcome.MISSED
    return Outcome.GONE if "g" in flags else Outcome.VISIT


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
    blocked: Response,
    monotonic: Callable[[], float],
    pages: Pages = NO_PAGES,
    proxy_protocol: bool = False,
    caps: Caps = Caps(),
    watch: Watch | None = None,
    chunked: Sequence[str] = (),
    describes_visits: bool = False,
    bounds: L1Bounds = BOUNDS,
) -> Front:
    """
    Return a front that answers as this application does, without its threads.

    Args:
        upstream: the private socket that granian listens on.
        redirect_limit: the limiter's functions for `Policy.REDIRECT`.
        not_found_limit: likewise for `Policy.NOT_FOUND`.
        trusted: networks of trusted proxies.
        base_path: the path of the base URL.
        blocked: the answer for a link that the operator blocks.
        monotonic: the clock of the L1 cache.
        pages: what people get in place of problems.
        proxy_protocol: whether the trusted proxies, and no others, connect, and name the client first.
        caps: of its connections.
        watch: what is reported of single requests; see `app.web.front_records`.
        chunked: paths that end in a slash, below which other APIs have routes: bodies need not announce their
            length there, and slugs of several segments may be routes.
        describes_visits: whether it keeps what visits look like, for `looks`.
        bounds: of its table, the L1 cache.
    """
    uploads = [bulk_api.PATH, import_api.PATH, import_files.CONSOLE_PATH, *chunked]
    away = Unavailable("the gateway", "its application did not answer")
    return Front(
        upstream=upstream,
        templates=[
            *map(_redirect, REDIRECT_CODES),
            template_of(errors.not_found(), pages),
            template_of(errors.gone(), pages),
            template_of(blocked, pages),
            template_of(_without(errors.too_many_requests(Refusal(0, {})), "retry-after"), pages),
            template_of(errors.server_error("front"), pages),
            template_of(errors.unavailable(away), pages),
        ],
        cut_off=template_of(errors.body_incomplete()),
        unsure=template_of(errors.unavailable(away, may_have_written=True)),
        late=template_of(errors.unavailable(Unavailable("the service", "late")), pages),
        not_prefetched=template_of(errors.not_prefetched(), pages),
        previews=(PREVIEW_WORDS, PREVIEW_STARTS),
        redirect_limit=redirect_limit,
        not_found_limit=not_found_limit,
        trusted=[str(network) for network in trusted],
        proxy_protocol=proxy_protocol,
        base_path=base_path,
        reserved=sorted({*RESERVED, *(path.removeprefix("/") for path in chunked)}),
        bounds=HTTP_SECONDS.bounds_of((REDIRECT_ROUTE,)),
        tarpit=(tarpit.FREE_PER_S, tarpit.BURST, tarpit.DELAY_S, tarpit.MAX_HELD),
        max_body=MAX_BODY_BYTES,
        uploads=sorted({*uploads, *(base_path + path for path in uploads)}),
        caps=(caps.head_s, caps.write_s, caps.answer_s, caps.connections),
        limit_s=REDIRECT_S,
        monotonic=monotonic,
        bounds_of_table=(bounds.entries, bounds.absent, bounds.long, bounds.min_versions),
        watch=watch,
        describes_visits=describes_visits,
    )


def _redirect(code: int) -> Template:
    link = Resolution(Slug("any"), 1, "https://example.com/", redirect_code=code)
    return template_of(_without(render(link, 0.0), "location"))


def _without(response: Response, name: str) -> Response:
    return replace(response, headers=[pair for pair in response.headers if pair[0] != name])


def template_of(response: Response, pages: Pages = NO_PAGES) -> Template:
    """Return *response* as the front takes it, with the page that people get in its place."""
    page = pages.page_of(response)
    in_place = None if page is None else (list(page.headers), page.body)
    return response.status, list(response.headers), response.body, in_place
