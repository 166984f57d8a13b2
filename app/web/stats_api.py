"""`/api/v1/stats` and those of a link: how often there were visits, and what they looked like."""

from __future__ import annotations

from datetime import datetime

from app.concurrency.actors import reach
from app.domain.errors import FieldError, InvalidInput
from app.domain.reach import EVERYTHING
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.keys import Scope
from app.service.stats import HourlyStats, Stats
from app.web import errors, schemas
from app.web.endpoint import Operation, Parameter
from app.web.links_api import DOMAIN, key_in_path, outcome_response
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import TIME, WrongValue
from app.web.request import Request
from app.web.response import Response, json_response
from app.web.robyn_app import Router
from app.web.stats_schemas import LinkStats, OverallStats, overall_document, stats_document

SINCE = Parameter(
    "since",
    "query",
    schemas.TIME,
    description="The hour of this time is the first. Default: 24 hours before `until`.",
)
UNTIL = Parameter(
    "until",
    "query",
    schemas.TIME,
    description="The first hour that begins then or later is left out. At most 31 days of whole hours."
    " Default: the end of the present hour.",
)
WIDE_UNTIL = Parameter(
    "until",
    "query",
    schemas.TIME,
    description="The first hour that begins then or later is left out. At most 366 days of whole hours."
    " Default: the end of the present hour.",
)


def register(api: Router, middleware: ApiMiddleware, stats: Stats, domains: Domains) -> None:
    """Declare the endpoints of statistics on *api*, the router of `/api/v1`."""

    @api.get("/links/:slug/stats")
    @middleware.endpoint(
        Operation(
            summary="Read how often a link was visited, by the hour, and what its visits looked like",
            scope=Scope.STATS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, LinkStats),
            problems=(404, 410, 422),
            parameters=(DOMAIN, SINCE, UNTIL),
        )
    )
    async def get_link_stats(call: Call[None]) -> Response:
        request = call.request
        name, since, until = (
            await key_in_path(request, domains),
            _time(request, "since"),
            _time(request, "until"),
        )
        outcome = await stats.hourly(name, since=since, until=until) if name else None
        if isinstance(outcome, HourlyStats):
            return json_response(200, stats_document(outcome, domains.index))
        return outcome_response(outcome, domains.index, call.principal)

    @api.get("/stats")
    @middleware.endpoint(
        Operation(
            summary="Read what the visits of all links looked like",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, OverallStats),
            problems=(422,),
            parameters=(SINCE, WIDE_UNTIL),
        )
    )
    async def get_stats(call: Call[None]) -> Response:
        if reach() != EVERYTHING:
            return errors.restricted()
        since, until = _time(call.request, "since"), _time(call.request, "until")
        return json_response(200, overall_document(await stats.overall(since=since, until=until)))


def _time(request: Request, name: str) -> datetime | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return TIME.read(text)
    except WrongValue as error:
        raise InvalidInput([FieldError(name, error.code, error.message)]) from None
